"""What shapes, types and devices of a row loss's input and target decide, whatever their values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ravine.errors import ArgumentTypeError, ShapeError
from ravine.losses.arguments import check_device, check_input, check_is_tensor


class RowLayout(NamedTuple):
    """How scores and targets become rows."""

    shape: torch.Size
    """Of the losses."""
    classes: int
    wide: torch.dtype
    """The type of the arithmetic."""
    dim: int
    """The dimension of the classes."""
    last: bool
    """Whether that is the last one."""
    soft: bool
    """Whether targets are probabilities."""
    as_is: bool
    """Whether nothing has to be moved, reshaped or converted."""

    def rows(self, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (rows, classes), and classes (rows,) or probabilities (rows, classes)."""
        if self.as_is:
            return input, target
        if not self.last:
            if self.soft and target.shape == input.shape:
                target = target.movedim(self.dim, -1)
            input = input.movedim(self.dim, -1)
        if input.ndim != 2:
            input = input.reshape(-1, self.classes)
            target = target.reshape(-1, self.classes) if self.soft else target.reshape(-1)
        kind = self.wide if self.soft else torch.int64
        return input, target if target.dtype is kind else target.to(kind)


def layout_of(name: str, input: Tensor, target: Tensor, dim: int, *, takes_soft: bool) -> RowLayout:
    """Check that input and target fit each other; return how they become rows.

    Args:
        name: of the loss, for messages.
        input: scores, of any float type.
        target: classes or, if ``takes_soft``, probabilities.
        dim: the dimension of the classes.
        takes_soft: whether targets may be probabilities.

    Raises:
        ArgumentTypeError: one is no tensor, or of a type that is not taken.
        ShapeError: they do not fit. ArgumentError: they are on different devices.
    """
    check_input(name, input)
    check_is_tensor(name, target)
    ndim = input.ndim
    if ndim == 0 or not -ndim <= dim < ndim:
        raise ShapeError(
            f"{name}: there is no dimension {dim} for the classes",
            got=f"input {tuple(input.shape)}",
        )
    last = dim in (-1, ndim - 1)
    scores = input if last else input.movedim(dim, -1)
    shape, soft = scores.shape[:-1], target.is_floating_point()
    if soft and not last and target.shape == input.shape:
        target = target.movedim(dim, -1)
    if soft and not takes_soft:
        raise ArgumentTypeError(
            f"{name}: targets are classes",
            got=f"a target of type {target.dtype}",
            expected=f"integers of shape {tuple(shape)}",
        )
    _check_target(name, input, target, scores.shape if soft else shape, dim)
    wide = torch.float64 if input.dtype is torch.float64 else torch.float32
    as_is = last and ndim == 2 and target.dtype is (wide if soft else torch.int64)
    return RowLayout(shape, scores.shape[-1], wide, dim, last, soft, as_is)


def _check_target(name: str, input: Tensor, target: Tensor, expected: torch.Size, dim: int) -> None:
    """Raise unless the target is a tensor of the shape that goes with the input."""
    if target.is_complex() or target.dtype == torch.bool:
        raise ArgumentTypeError(
            f"{name}: targets cannot be of type {target.dtype}",
            expected="integer classes, or probabilities in a float type",
        )
    if target.shape != expected:
        classes = input.shape[dim]
        hint = f"the classes are dimension {dim} of the input here"
        if (
            input.ndim > 2
            and dim in (-1, input.ndim - 1)
            and (target.shape == input.shape[:1] + input.shape[2:])
        ):
            hint = "torch has the classes in dimension 1; for that layout give dim=1"
        raise ShapeError(
            f"{name}: input and target do not fit each other",
            got=f"input {tuple(input.shape)}, target {tuple(target.shape)} {target.dtype}",
            expected=f"integer targets {tuple(expected)}"
            if not target.is_floating_point()
            else f"probabilities {tuple(expected)}, or integer classes; there are {classes} classes",
            do=hint,
        )
    check_device(name, "target", target, input)
