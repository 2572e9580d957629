"""What one step of a tiny model is made of: `python benchmarks/step_parts.py` (9k weights in 6 tensors).

Each part is timed alone, the fastest of many turns, so that the parts add up to a little less than the
step. `look` is the call within `gather` that asks PyTorch for weights and gradients; what begins with
"one by one:" are the calls that it takes the place of.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torch
from measure import arguments, line, save

from ravine import optim
from ravine.bench.steps import MODELS, RULES

CHOSEN = ("SGD", "momentum", "Adagrad", "Lion", "Adam", "AdamW", "AdamW, bfloat16 state")
COMMON = {"norm": 1.0, "grad_scale": 1.0}


def fastest(call: Callable[[], object], turns: int) -> float:
    """Return the microseconds of one call in the fastest turn."""
    return min(timeit.repeat(call, number=300, repeat=turns)) / 300 * 1e6


def parts(rule: str, turns: int) -> dict[str, float]:
    """Return the microseconds of a step and of its parts."""
    row = RULES[rule]
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in MODELS["9k"]]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = getattr(optim, row.rule)(weights, **row.options, **row.ours)
    for _ in range(20):
        optimizer.step()
    plan = optimizer._plan
    (bucket,) = plan.buckets
    gradients = [weight.grad for weight in weights]
    options, now = bucket.numbers.count(None, COMMON)[0][0]
    scalars = bucket._last._scalars_of
    calls: dict[str, Callable[[], object]] = {
        "step": optimizer.step,
        "notice edits": lambda: plan.fits(optimizer.param_groups, optimizer.state),
        "gather": bucket.gather,
        "count": lambda: bucket.numbers.count(None, COMMON),
        "scalars": lambda: scalars(options)(now),
        "kernel": bucket._last.launch.run,
        "versions": lambda: torch._C._increment_version(weights),
        "look": bucket._found.look,
        "one by one: gradients": lambda: [weight.grad for weight in weights],
        "one by one: addresses": lambda: list(map(torch.Tensor.data_ptr, weights + gradients)),
        "one by one: bytes": lambda: list(map(attrgetter("nbytes"), weights)),
        "one by one: contiguous": lambda: all(map(torch.Tensor.is_contiguous, gradients)),
    }
    if bucket._last.rounds:
        calls["keys"] = bucket.numbers.keys
    return {name: fastest(call, turns) for name, call in calls.items()}


def main() -> None:
    quick = arguments(__doc__ or "").quick
    rows = []
    for rule in CHOSEN[: 1 if quick else None]:
        found = parts(rule, 2 if quick else 50)
        rows.append({"rule": rule, "microseconds": found})
        line(rule, *(f"{name} {time:.2f}" for name, time in found.items()))
    if not quick:
        print(save("step_parts", {"rows": rows}, "python benchmarks/step_parts.py"))


if __name__ == "__main__":
    main()
