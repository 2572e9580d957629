"""The sum of squares of many tensors, in float64 and always in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ravine.engine.equation import Equation
from ravine.engine.program import Program, Stage


def _square(g):  # type: ignore[no-untyped-def]
    return g * g


SQUARES = Program([Stage(Equation(_square), ("g",), ("square",))])
"""The program whose total over all elements is the squared norm."""


def squared_norm(tensors: Sequence[Tensor]) -> float:
    """Return the sum of squares of all elements, computed in float64 by plain PyTorch operations."""
    return sum((float(sum_of_squares(tensor)) for tensor in tensors), 0.0)


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Return the sum of squares of a tensor's elements in float64, where it is."""
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return values.detach().to(torch.float64, copy=True).square_().sum()


def count_nonfinite(tensors: Sequence[Tensor | None]) -> int:
    """Return how many elements are NaN or infinite."""
    return sum(t.numel() - int(torch.isfinite(t.detach()).sum()) for t in tensors if t is not None)
