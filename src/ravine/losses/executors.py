"""Which kernels run on a tensor."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ravine.engine.choice import unavailable

Kind = Literal["cpu", "gpu", ""]


def kind_of(tensor: Tensor) -> Kind:
    """Return what can run kernels on a tensor; warn once where that cannot be used."""
    kind: Kind = "cpu" if tensor.is_cpu else "gpu" if tensor.is_cuda else ""
    return "" if not kind or unavailable(kind) else kind


def executor(rows: Any, scores: Tensor) -> Kind:
    """Return what runs the kernel of a row loss on these scores, empty where it has none."""
    kind = kind_of(scores)
    return "" if kind == "gpu" and not rows.on_gpu else kind


def multiply(tensor: Tensor, number: float | Tensor) -> None:
    """Multiply in place; a number on a GPU is not waited for, and where it is 1 nothing is done.

    The tensor is of the type of the arithmetic and has no gaps in memory.
    """
    if not isinstance(number, Tensor):
        if number != 1:
            tensor.mul_(number)
    elif number.numel() == 1 and kind_of(tensor) == "gpu":
        from ravine.losses.kernels import times_gpu  # which imports Triton

        times_gpu.multiply(tensor, number)
    else:
        tensor.mul_(number)
