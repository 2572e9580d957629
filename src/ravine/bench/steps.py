"""The optimizer step against its peers: time, ratio to the best, share of the memory's speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ravine import optim
from ravine.bench.peers import Step, Unable, Weights, peers, tried
from ravine.bench.record import OURS, STREAM, chosen, compared, recorded
from ravine.bench.timing import interleaved, stream

MODELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "9k": ((64, 100), (100,), (100, 20), (20,), (20, 10), (10,)),
    "2M": ((128, 100),) * 155 + ((128,),) * 4,
    "42M": ((900, 900),) * 52,
}
"""The shapes of the models that are stepped: 6, 159 and 52 weights."""

GPU_MODELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "1M": ((100, 100),) * 100,
    "100M": ((1000, 1000),) * 100,
    "1G": ((10_000, 1000),) * 100,
}


@dataclass(frozen=True)
class Row:
    """A rule with options, and the bytes of float32 that it must move for each weight.

    Attributes:
        rule: the class, in ``ravine.optim`` and at the peers.
        bytes_each: read and written once each: weight, gradient and state.
        options: what ours and the peers are made with.
        ours: what only ours is made with.
    """

    rule: str
    bytes_each: float
    options: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)


RULES: dict[str, Row] = {
    "SGD": Row("SGD", 12, {"lr": 1e-3}),
    "momentum": Row("SGD", 20, {"lr": 1e-3, "momentum": 0.9}),
    "RMSprop": Row("RMSprop", 20, {"lr": 1e-3}),
    "Adagrad": Row("Adagrad", 20, {"lr": 1e-3}),
    "Adadelta": Row("Adadelta", 28, {"lr": 1e-3}),
    "NAdam": Row("NAdam", 28, {"lr": 1e-3}),
    "RAdam": Row("RAdam", 28, {"lr": 1e-3}),
    "Lion": Row("Lion", 20, {"lr": 1e-4}),
    "Adam": Row("Adam", 28, {"lr": 1e-3}),
    "AdamW": Row("AdamW", 28, {"lr": 1e-3}),
    "AdamW+clip_norm": Row("AdamW", 32, {"lr": 1e-3, "clip_norm": 1.0}),
    "AdamW, bfloat16 state": Row("AdamW", 20, {"lr": 1e-3}, {"state_dtype": "bfloat16"}),
    "AdamW, int8 state": Row("AdamW", 16, {"lr": 1e-3}, {"state_dtype": "int8"}),
}
"""The rows of the table. 8-bit state is compared with the peers' float32 state."""


def bench_steps(
    *,
    models: Iterable[str] = (),
    rules: Iterable[str] = (),
    seconds: float = 6.0,
    device: str = "cpu",
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Time one step of each rule over each model, ours and every peer's in turns.

    Args:
        models: names of `MODELS` (of `GPU_MODELS` on a GPU); all of them when empty.
        rules: names of `RULES`; all of them when empty.
        seconds: the time for each row, all cases together.
        device: "cpu" or "cuda".
        on_row: called with each row as soon as it has been measured.

    Returns:
        A record of plain words and numbers: the environment, and rows with ``microseconds`` by case,
        the ``best_peer``, the ``ratio`` of its time to ours, ``stream_limit_bytes_per_second`` (of a
        pass that reads two arrays and writes one of them, in turns with the others),
        ``share_of_limit`` (the time that the rule's bytes need at that speed, divided by our time),
        and ``unable``: why a peer is missing.

    Raises:
        UnknownNameError: for another model or rule.
    """
    known = GPU_MODELS if device.startswith("cuda") else MODELS
    chosen_models = chosen("model", models, known)
    chosen_rules = chosen("rule", rules, RULES)
    rows = [
        partial(_row, model, known[model], name, seconds, device)
        for model in chosen_models
        for name in chosen_rules
    ]
    return recorded("bench steps", rows, device, on_row)


def _row(
    model: str,
    shapes: tuple[tuple[int, ...], ...],
    name: str,
    seconds: float,
    device: str,
) -> dict[str, Any]:
    row = RULES[name]
    weights = _weights(shapes, device)
    optimizer = getattr(optim, row.rule)(_over(weights), **row.options, **row.ours)
    cases: dict[str, Step] = {STREAM: stream(device), OURS: optimizer.step}
    unable: dict[str, str] = {}
    for peer, make in peers(row.rule, row.options):
        try:
            cases[peer] = tried(make, _over(weights))
        except Unable as reason:
            unable[peer] = str(reason)
    times = interleaved(cases, seconds=seconds, device=device)
    count = sum(torch.Size(shape).numel() for shape in shapes)
    return {
        "model": model,
        "weights": count,
        "rule": name,
        **compared(times, round(count * row.bytes_each), unable),
    }


def _weights(shapes: Iterable[tuple[int, ...]], device: str) -> Weights:
    """Return fresh weights with gradients."""
    made = []
    for shape in shapes:
        weight = torch.nn.Parameter(torch.randn(shape, device=device) * 0.1)
        weight.grad = torch.randn_like(weight)
        made.append(weight)
    return made


def _over(weights: Weights) -> Weights:
    """Return other parameters and gradients over the same memory.

    Where memory lies decides more than how it is stepped: SGD on 42M weights, each way over memory of its
    own, was .93 and 1.10 of torch's best in two runs; over the same memory .98 to 1.01.
    """
    made = []
    for weight in weights:
        assert weight.grad is not None
        other = torch.nn.Parameter(weight.detach())
        other.grad = weight.grad.detach()
        made.append(other)
    return made
