"""AdamW with state in float32, bfloat16 and int8: time and memory, `python benchmarks/lean_state.py`.

42M weights in 52 tensors, as in `ravine bench steps`, and 2M in 159; torch's fused AdamW beside them. The
share of the stream limit counts the bytes that have to move: weight and state both ways, gradient once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

from ravine.bench.timing import STREAM_BYTES, interleaved, stream
from ravine.optim import AdamW

SHAPES = {"2M": [(112, 112)] * 159, "42M": [(900, 900)] * 52}
STATES = ("float32", "bfloat16", "int8")


def weights(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Return weights with gradients."""
    made = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    for w in made:
        w.grad = torch.randn_like(w) * 1e-2
    return made


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all state but the step counts."""
    tensors = [t for s in optimizer.state.values() for name, t in s.items() if name != "step"]
    return sum(t.numel() * t.element_size() for t in tensors)


def measured(name: str, dtype: torch.dtype, seconds: float) -> list[dict[str, Any]]:
    """Time the steps of one model, print them and return them."""
    options: dict[str, Any] = {"stochastic_rounding": dtype is torch.bfloat16}
    optimizers: dict[str, torch.optim.Optimizer] = {
        kind: AdamW(weights(SHAPES[name], dtype), lr=1e-5, state_dtype=kind, **options)
        for kind in STATES
    }
    optimizers["torch fused"] = torch.optim.AdamW(weights(SHAPES[name], dtype), lr=1e-5, fused=True)
    cases: dict[str, Callable[[], object]] = {k: o.step for k, o in optimizers.items()}
    times = interleaved({**cases, "stream": stream()}, seconds=seconds)
    limit = STREAM_BYTES / times["stream"]
    rows = []
    for kind, optimizer in optimizers.items():
        params = optimizer.param_groups[0]["params"]
        count = sum(w.numel() for w in params)
        held = state_bytes(optimizer)
        moved = 3 * count * dtype.itemsize + 2 * held
        row = {
            "model": name, "weights": str(dtype), "state": kind, "ms": times[kind] * 1e3,
            "against_float32": times["float32"] / times[kind],
            "state_bytes_a_weight": held / count,
            "share_of_limit": moved / times[kind] / limit,
        }  # fmt: skip
        rows.append(row)
        line(
            f"{name} {dtype} weights, {kind}", f"{row['ms']:.2f} ms",
            f"{row['against_float32']:.2f} x", f"{held / count:.2f} B", f"{row['share_of_limit']:.2f}",
        )  # fmt: skip
    return rows


def main() -> None:
    quick = arguments(__doc__ or "").quick
    line("", "step", "float32 / it", "state / weight", "of the limit")
    rows = []
    for name in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            rows += measured(name, dtype, 1.0 if quick else 12.0)
    if not quick:
        print(save("lean_state", {"rows": rows}, "python benchmarks/lean_state.py"))


if __name__ == "__main__":
    main()
