"""Losses, forward and backward, against eager torch and torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ravine import losses
from ravine.bench.peers import Unable
from ravine.bench.record import OURS, chosen, compared, recorded
from ravine.bench.timing import interleaved

UNCHECKED = f"{OURS} check=off"

Loss = Callable[[Tensor, Tensor], Tensor]
Run = Callable[[], None]

ELEMENTS: dict[str, tuple[int, ...]] = {"64": (64,), "8.4M": (1 << 23,)}
ROWS: dict[str, tuple[int, ...]] = {
    f"{rows}x{classes}": (rows, classes)
    for rows, classes in ((64, 10), (8192, 10), (8192, 1000), (2048, 32768))
}
SIZES: dict[str, tuple[int, ...]] = {**ELEMENTS, **ROWS}
"""The shapes of the inputs."""


@dataclass(frozen=True)
class Peer:
    """A loss as torch has it, or as one writes it there, and targets for it.

    Attributes:
        loss: what gives the same number.
        target: the target for an input of a shape, on a device.
        sizes: the inputs that it is timed on.
    """

    loss: Loss
    target: Callable[[tuple[int, ...], str], Tensor]
    sizes: tuple[str, ...] = tuple(ELEMENTS)


def _hinge(x: Tensor, y: Tensor) -> Tensor:
    return (1 - y * x).clamp_min(0).mean()


def _numbers(shape: tuple[int, ...], device: str) -> Tensor:
    return torch.rand(shape, device=device)


def _labels(shape: tuple[int, ...], device: str) -> Tensor:
    return torch.rand(shape, device=device).round()


def _signs(shape: tuple[int, ...], device: str) -> Tensor:
    return 2 * _labels(shape, device) - 1


def _classes(shape: tuple[int, ...], device: str) -> Tensor:
    return torch.randint(shape[1], shape[:1], device=device)


LOSSES: dict[str, Peer] = {
    "mse": Peer(F.mse_loss, _numbers),
    "mae": Peer(F.l1_loss, _numbers),
    "huber": Peer(F.huber_loss, _numbers),
    "smooth_l1": Peer(F.smooth_l1_loss, _numbers),
    "poisson": Peer(F.poisson_nll_loss, _numbers),
    "hinge": Peer(_hinge, _signs),
    "binary_cross_entropy": Peer(F.binary_cross_entropy_with_logits, _labels),
    "cross_entropy": Peer(F.cross_entropy, _classes, tuple(ROWS)),
}
"""The losses that are timed, by their name in `ravine.losses`."""


def bench_losses(
    *,
    losses: Iterable[str] = (),
    sizes: Iterable[str] = (),
    seconds: float = 6.0,
    device: str = "cpu",
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Time loss and gradient (mean, float32) of each loss on each size, ours and torch's in turns.

    Every case has an input of its own, whose gradient is dropped before each call, as a training
    loop does. A peer is timed after it has given our value and gradient to 1e-3.

    Args:
        losses: names of `LOSSES`; all of them when empty.
        sizes: names of `SIZES`; all of them when empty.
        seconds: the time for each row, all cases together.
        device: "cpu" or "cuda".
        on_row: called with each row as soon as it has been measured.

    Returns:
        A record of plain words and numbers like that of `bench_steps`; a row has the ``ratios`` of
        both peers' time to ours, and the share of ours that ``check="off"`` saves as
        ``cost_of_checking``. Its bytes are input and target read once, gradient written once.

    Raises:
        UnknownNameError: for another loss or size.
    """
    names, wanted = chosen("loss", losses, LOSSES), chosen("size", sizes, SIZES)
    groups = (
        [
            partial(_row, name, size, seconds, device)
            for size in LOSSES[name].sizes
            if size in wanted
        ]
        for name in names
    )
    return recorded("bench losses", groups, device, on_row)


def _row(name: str, size: str, seconds: float, device: str) -> dict[str, Any]:
    peer, shape = LOSSES[name], SIZES[size]
    x, y = torch.randn(shape, device=device), peer.target(shape, device)
    ours = losses.FUNCTIONS[name]
    cases: dict[str, Run] = {OURS: prepared(ours, x, y)[0]}
    unable: dict[str, str] = {}
    cases[UNCHECKED] = prepared(partial(ours, check="off"), x, y)[0]
    torch._dynamo.reset()  # what was compiled for other shapes must not slow this one
    for way, made in (("torch eager", peer.loss), ("torch compile", torch.compile(peer.loss))):
        try:
            cases[way] = tried(made, ours, x, y)
        except Unable as reason:
            unable[way] = str(reason)
    times = interleaved(cases, seconds=seconds, device=device)
    return {
        "loss": name,
        "size": size,
        "ratios": {
            way: round(times[way] / times[OURS], 3) for way in times if not way.startswith(OURS)
        },
        "cost_of_checking": round(1 - times[UNCHECKED] / times[OURS], 3),
        **compared(times, 2 * x.nbytes + y.nbytes, unable),
    }


def prepared(loss: Loss, x: Tensor, y: Tensor) -> tuple[Run, Tensor]:
    """Return one forward and backward over an input of its own, and that input."""
    own = x.clone().requires_grad_()

    def run() -> None:
        own.grad = None
        loss(own, y).backward()  # type: ignore[no-untyped-call]

    return run, own


def tried(loss: Loss, ours: Loss, x: Tensor, y: Tensor) -> Run:
    """Return a peer's forward and backward that have been seen to give our numbers.

    Raises:
        Unable: with the reason: other numbers, or whatever the peer has raised.
    """
    mine, input = prepared(ours, x, y)
    mine()
    try:
        run, own = prepared(loss, x, y)
        run()
        found, gradient = loss(x, y), own.grad
    except Exception as error:  # a compiler that is missing, above all
        raise Unable.because(error) from error
    for theirs, exact in ((found, ours(x, y)), (gradient, input.grad)):
        assert theirs is not None and exact is not None
        if not torch.allclose(theirs, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max())):
            raise Unable("gives other numbers than ours")
    return run
