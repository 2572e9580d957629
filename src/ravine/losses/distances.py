# mypy: disable-error-code="no-untyped-call"
"""Distances between vectors: their squares in one pass, and the gradients in another, rounded once.

Differences and sums are float64 for float32 and less, where no square leaves the range; float64 vectors
have `vectors.length`, which divides by the largest number first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ravine.losses import buffers, executors
from ravine.losses.arguments import is_batched, plain_only
from ravine.losses.samples import counted
from ravine.losses.vectors import length

PAIRS = (0, 1), (0, 2), (1, 2)


def distances(
    vectors: tuple[Tensor, ...], pairs: int, counts: Tensor | None, *, eps: float, p: float
) -> tuple[Tensor, ...]:
    """Return the p-norms of x - y + eps over the last dimension; slopes are 0 at the zero vector.

    Args:
        vectors: two or three tensors (..., D) of one float type.
        pairs: how many of `PAIRS`.
        counts: (...) which vectors count, or None if all do. Nothing of the others matters.
        eps: added to each difference.
        p: the norm.

    Returns:
        (...) for each pair, in float64 where a kernel serves.
    """
    if p != 2 or not _served(vectors):
        vectors = counted(vectors, counts)
        return tuple(length(vectors[i] - vectors[j] + eps, p) for i, j in PAIRS[:pairs])
    found: Tensor = SquaredDistances.apply(pairs, eps, *vectors)
    return tuple(_root(one) for one in found.unbind(0))


def squares_and_distances(
    x: Tensor, y: Tensor, apart: Tensor, counts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return |x - y|^2 of vectors that are not ``apart``, and |x - y| of those that are; else 0."""
    if not _served((x, y)):
        x, y = counted((x, y), counts)
        chosen = apart[..., None]
        # Not the length squared: that has no second derivative at 0.
        squares = (torch.where(chosen, 0.0, x - y) ** 2).sum(-1)
        return squares, length(torch.where(chosen, x - y, 0.0), 2)
    found: Tensor = SquaredDistances.apply(1, 0.0, x, y)
    return torch.where(apart, 0.0, found[0]), _root(torch.where(apart, found[0], 0.0))


def _served(vectors: tuple[Tensor, ...]) -> bool:
    """Whether there are kernels for these vectors."""
    first = vectors[0]
    if first.dtype is torch.float64 or not first.numel() or plain_only(*vectors):
        return False
    return all(one.dtype is first.dtype for one in vectors) and bool(executors.kind_of(first))


def _root(squares: Tensor) -> Tensor:
    """Return the root, with the slope 0 at 0; infinity and NaN, which may be left out, have none either."""
    usable = squares > 0
    return torch.where(usable, torch.where(usable, squares, 1.0).sqrt(), squares.detach())


class SquaredDistances(torch.autograd.Function):
    """The squares (pairs, ...) in float64; what arrives is multiplied in before gradients are rounded."""

    @staticmethod
    def forward(ctx: Any, pairs: int, eps: float, *vectors: Tensor) -> Tensor:
        ctx.save_for_backward(*vectors)
        ctx.eps = eps
        rows = [_rows(one) for one in vectors]
        found: Tensor = _kernels(vectors[0]).squared_distances(rows, eps, pairs)
        return found.reshape(pairs, *vectors[0].shape[:-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        vectors = ctx.saved_tensors
        times = 2 * grad
        # This way back may itself be differentiated, or see many gradients at once (vmap).
        if torch.is_grad_enabled() or is_batched(grad):
            return None, None, *_plainly(vectors, times[..., None], ctx.eps)
        first = vectors[0]
        rows = [_rows(one) for one in vectors]
        needs = ctx.needs_input_grad[2:]
        found = [
            buffers.take(rows[0], first.dtype) if need else None
            for _, need in zip(vectors, needs, strict=True)
        ]
        times = times.reshape(len(grad), -1).contiguous()
        _kernels(first).pulled(rows, ctx.eps, times, found)
        return None, None, *(None if one is None else one.reshape(first.shape) for one in found)


def _plainly(vectors: tuple[Tensor, ...], times: Tensor, eps: float) -> list[Tensor]:
    """Return the gradients by plain operations."""
    wide = [one.double() for one in vectors]
    found = [torch.zeros_like(one) for one in wide]
    for (i, j), each in zip(PAIRS, times.unbind(0), strict=False):
        slope = torch.where(each == 0, 0.0, each * (wide[i] - wide[j] + eps))
        found[i], found[j] = found[i] + slope, found[j] - slope
    return [one.to(vector.dtype) for one, vector in zip(found, vectors, strict=True)]


def _rows(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1]).contiguous()


def _kernels(tensor: Tensor) -> Any:
    """Return the module with the kernels for a tensor's device."""
    if executors.kind_of(tensor) == "gpu":
        from ravine.losses.kernels import distances_gpu  # which imports Triton

        return distances_gpu
    from ravine.losses.kernels import distances_cpu

    return distances_cpu
