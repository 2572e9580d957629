"""Losses, forward and backward, against eager torch and torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ravine import losses
from ravine.bench.loss_peers import LOSSES, SIZES, Loss
from ravine.bench.peers import Unable
from ravine.bench.record import OURS, STREAM, chosen, compared, recorded
from ravine.bench.timing import Call, interleaved, stream

UNCHECKED = f"{OURS} check=off"

Run = Callable[[], None]


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
    loop does. A peer is timed after it has given our value and gradient to 1e-3, but for one slope in a
    million: rounding may put a margin on the other side of its kink.

    Args:
        losses: names of `LOSSES`; all of them when empty.
        sizes: names of `SIZES`; all of them when empty.
        seconds: the time for each row, all cases together.
        device: "cpu" or "cuda".
        on_row: called with each row as soon as it has been measured.

    Returns:
        A record of plain words and numbers like that of `bench_steps`; a row has the ``ratios`` of
        both peers' time to ours, and the share of ours that ``check="off"`` saves as
        ``cost_of_checking``. Its bytes are all tensors read once, the gradient written once.

    Raises:
        UnknownNameError: for another loss or size.
    """
    names, wanted = chosen("loss", losses, LOSSES), chosen("size", sizes, SIZES)
    rows = [
        partial(_row, name, size, seconds, device)
        for name in names
        for size in LOSSES[name].sizes
        if size in wanted
    ]
    return recorded("bench losses", rows, device, on_row)


def _row(name: str, size: str, seconds: float, device: str) -> dict[str, Any]:
    peer, shape = LOSSES[name], SIZES[size]
    x, tensors = torch.randn(shape, device=device), peer.tensors(shape, device)
    ours = partial(losses.FUNCTIONS[name], **peer.options)
    cases: dict[str, Call] = {STREAM: stream(device), OURS: prepared(ours, x, *tensors)[0]}
    unable: dict[str, str] = {}
    cases[UNCHECKED] = prepared(partial(ours, check="off"), x, *tensors)[0]
    torch._dynamo.reset()  # what was compiled for other shapes must not slow this one
    for way, made in (("torch eager", peer.loss), ("torch compile", torch.compile(peer.loss))):
        try:
            cases[way] = tried(made, ours, x, *tensors)
        except Unable as reason:
            unable[way] = str(reason)
    times = interleaved(cases, seconds=seconds, device=device)
    return {
        "loss": name,
        "size": size,
        "ratios": {
            way: round(times[way] / times[OURS], 3) for way in times if way.startswith("torch")
        },
        "cost_of_checking": round(1 - times[UNCHECKED] / times[OURS], 3),
        **compared(times, 2 * x.nbytes + sum(t.nbytes for t in tensors), unable),
    }


def prepared(loss: Loss, x: Tensor, *tensors: Tensor) -> tuple[Run, Tensor]:
    """Return one forward and backward over an input of its own, and that input."""
    own = x.clone().requires_grad_()

    def run() -> None:
        own.grad = None
        loss(own, *tensors).backward()  # type: ignore[no-untyped-call]

    return run, own


def tried(loss: Loss, ours: Loss, x: Tensor, *tensors: Tensor) -> Run:
    """Return a peer's forward and backward that have been seen to give our numbers.

    Raises:
        Unable: with the reason: other numbers, or whatever the peer has raised.
    """
    mine, input = prepared(ours, x, *tensors)
    mine()
    try:
        run, own = prepared(loss, x, *tensors)
        run()
        found, gradient = loss(x, *tensors), own.grad
    except Exception as error:  # a compiler that is missing, above all
        raise Unable.because(error) from error
    for theirs, exact in ((found, ours(x, *tensors)), (gradient, input.grad)):
        assert theirs is not None and exact is not None
        near = torch.isclose(theirs, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))
        if int((~near).sum()) > 1e-6 * exact.numel():
            raise Unable("gives other numbers than ours")
    return run
