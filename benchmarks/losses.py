"""Losses forward and backward against eager torch and torch.compile: `python benchmarks/losses.py`.

Each row is one loss on one shape; every way gets an input of its own, and they take turns in one
process. The gradient is dropped before each call, as a training loop does. `share of limit` is the time
that the bytes need at the measured stream limit (input and target read once, gradient written once),
divided by the time taken. torch.compile (default mode) needs a C++ compiler and compiles before timing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

from ravine import losses
from ravine.bench.timing import interleaved, stream_limit

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """A loss, ours and torch's, and its data."""

    ours: Loss
    theirs: Loss
    data: Callable[[], tuple[Tensor, Tensor]]


def torch_hinge(x: Tensor, y: Tensor) -> Tensor:
    """Hinge as one writes it in torch, which has none of its own."""
    return (1 - y * x).clamp_min(0).mean()


def vectors(target: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a maker of 8.4 million inputs with the targets of a random vector."""
    return lambda: (torch.randn(1 << 23), target(torch.rand(1 << 23)))


def rows(count: int, classes: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a maker of rows of logits with integer targets."""
    return lambda: (torch.randn(count, classes), torch.randint(classes, (count,)))


ROWS: dict[str, Row] = {
    "MSE 8.4M": Row(losses.mse, F.mse_loss, vectors(lambda r: r)),
    "Huber 8.4M": Row(losses.huber, F.huber_loss, vectors(lambda r: r)),
    "hinge 8.4M": Row(losses.hinge, torch_hinge, vectors(lambda r: (r < 0.5) * 2.0 - 1)),
    "BCE with logits 8.4M": Row(
        losses.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        vectors(lambda r: (r < 0.5).float()),
    ),
} | {
    f"cross-entropy {count} x {classes}": Row(
        losses.cross_entropy, F.cross_entropy, rows(count, classes)
    )
    for count, classes in ((64, 10), (8192, 10), (8192, 1000), (2048, 32768))
}


def prepared(loss: Loss, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return one forward and backward over an input of its own."""
    own = x.clone().requires_grad_()

    def run() -> None:
        own.grad = None
        loss(own, y).backward()

    return run


def main() -> None:
    quick = arguments(__doc__ or "").quick
    limits = [stream_limit()]
    found = []
    line("", "ours us", "eager us", "ratio", "compile us", "ratio", "share of limit")
    for name, row in ROWS.items():
        x, y = row.data()
        torch._dynamo.reset()
        cases = {
            "ours": prepared(row.ours, x, y),
            "eager": prepared(row.theirs, x, y),
            "compile": prepared(torch.compile(row.theirs), x, y),
        }
        times = interleaved(cases, seconds=1.0 if quick else 9.0)
        ratios = {peer: times[peer] / times["ours"] for peer in ("eager", "compile")}
        moved = 2 * x.nbytes + y.nbytes
        share = moved / limits[0] / times["ours"]
        found.append(
            {
                "loss": name,
                "microseconds": {case: round(t * 1e6, 2) for case, t in times.items()},
                "ratio": {peer: round(ratio, 3) for peer, ratio in ratios.items()},
                "share_of_limit": round(share, 3),
            }
        )
        line(
            name,
            f"{times['ours'] * 1e6:.1f}",
            f"{times['eager'] * 1e6:.1f}",
            f"{ratios['eager']:.2f}",
            f"{times['compile'] * 1e6:.1f}",
            f"{ratios['compile']:.2f}",
            f"{share:.2f}",
        )
    limits.append(stream_limit())
    print(f"stream limit before and after: {limits[0] / 1e9:.1f}, {limits[1] / 1e9:.1f} GB/s")
    if not quick:
        result = {"stream_limit_bytes_per_second": limits, "rows": found}
        print(save("losses", result, "python benchmarks/losses.py"))


if __name__ == "__main__":
    main()
