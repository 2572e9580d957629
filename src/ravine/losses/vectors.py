"""Lengths and directions of vectors, with finite slopes at the zero vector, and their checks.

Each vector is first divided by its largest number: squares of 1e30, or of 1e-30, are out of float32's
range. That number is a constant for autograd, and the result does not depend on it, so its
derivatives are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.errors import ShapeError
from ravine.losses.arguments import check_device, check_input


def length(x: Tensor, p: float) -> Tensor:
    """Return the p-norm over the last dimension; its slope is 0 at the zero vector.

    A vector that is not finite has the length infinity or NaN, and no slope.
    """
    size, usable, y = _scaled(x)
    if p == 1:
        norm = y.abs().sum(-1)
    elif p == 2:
        norm = (y * y).sum(-1).sqrt()
    elif p == torch.inf:
        norm = y.abs().amax(-1)
    else:
        # Where y is 0 its power has the slope 0, and another one than autograd's: infinity for p < 2.
        here = y != 0
        power = torch.where(here, torch.where(here, y, 1.0).abs() ** p, 0.0)
        norm = power.sum(-1) ** (1 / p)
    return torch.where(usable, torch.where(usable, size, 1.0) * norm, size)


def direction(x: Tensor) -> Tensor:
    """Return x / |x| over the last dimension; the zero vector stays, and its slope is 0."""
    size, usable, y = _scaled(x)
    unit = y / (y * y).sum(-1, keepdim=True).sqrt()
    return torch.where(usable[..., None], unit, torch.where(size == 0, 0.0, torch.nan)[..., None])


def _scaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest size, whether it is finite and not 0, and the vector divided by it."""
    size = x.detach().abs().amax(-1)
    usable = size.isfinite() & (size > 0)
    y = torch.where(usable[..., None], x, 1.0) / torch.where(usable, size, 1.0)[..., None]
    return size, usable, y


def check_vectors(name: str, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> torch.Size:
    """Return the shape before the last dimension; raise unless all are floats of one shape."""
    first = tensors[0]
    for tensor in tensors:
        check_input(name, tensor)
    if first.ndim == 0 or first.shape[-1] == 0:
        raise ShapeError(
            f"{name}: there are no vectors",
            got=f"{names[0]} {tuple(first.shape)}",
            expected="vectors in the last dimension, of at least one number",
        )
    for what, tensor in zip(names[1:], tensors[1:], strict=True):
        if tensor.shape != first.shape:
            raise ShapeError(
                f"{name}: {names[0]} and {what} differ in shape",
                got=f"{names[0]} {tuple(first.shape)}, {what} {tuple(tensor.shape)}",
                expected="the same shape; nothing is broadcast",
            )
        check_device(name, what, tensor, first)
    return first.shape[:-1]


def check_batch(name: str, tensors: tuple[Tensor, ...], values: Mapping[str, Any]) -> torch.Size:
    """Return (N,) for an input and a target of shape (N, D), of which each row is a sample."""
    shape = check_vectors(name, ("input", "target"), tensors)
    if len(shape) != 1:
        raise ShapeError(
            f"{name}: input and target are batches of vectors",
            got=f"shape {tuple(tensors[0].shape)}",
            expected="(N, D)",
            do="reshape them; torch.func.vmap makes separate batches",
        )
    return shape
