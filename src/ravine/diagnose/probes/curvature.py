"""Extreme eigenvalues of the Hessian by Lanczos on Hessian-vector products.

Cost: a Hessian-vector product is about two backward passes; at most 60 of them for each end of the
spectrum, on 256 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

DENSE = 40
"""Up to so many weights the whole matrix is made: Lanczos needs more dimensions than vectors."""

ITERATIONS = 60
SETTLED = 1e-4
"""Of the largest eigenvalue: an end that is known so well needs no further products."""


@dataclass(frozen=True)
class Extremes:
    """The lowest and the highest eigenvalue.

    Attributes:
        lowest, highest: the eigenvalues.
        direction: the unit eigenvector of the lowest.
        spectrum: eigenvalues and the share of all that each stands for, in rising order: those of
            the whole matrix, or Lanczos's with the weights of its Gauss quadrature, by which a
            random vector estimates how many there are of which size (Golub & Welsch 1969).
    """

    lowest: float
    highest: float
    direction: Tensor
    spectrum: tuple[tuple[float, float], ...] = ()


def hessian_product(
    loss: Callable[[], Tensor], weights: list[Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return v -> H v of a loss, H its Hessian by all weights, flattened in order.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian_product(lambda: w[0] ** 3 + w[1] ** 2, [w])(torch.tensor([1.0, 1.0]))
    tensor([6., 2.])
    """
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        slopes = torch.autograd.grad(loss(), weights, create_graph=True, allow_unused=True)
    used = [
        (w, s) for w, s in zip(weights, slopes, strict=True) if s is not None and s.requires_grad
    ]

    def product(vector: Tensor) -> Tensor:
        parts = dict(zip(map(id, weights), split(vector, weights), strict=True))
        if not used:  # the loss is affine in every weight
            return torch.zeros_like(vector)
        along = torch.stack([(s * parts[id(w)].to(s)).sum() for w, s in used]).sum()
        second: Any = torch.autograd.grad(along, weights, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(w) if h is None else h).detach().flatten().to(vector)
                for w, h in zip(weights, second, strict=True)
            ]
        )

    return product


def split(vector: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Return a flat vector in the shapes of the weights."""
    pieces = torch.split(vector, [w.numel() for w in weights])
    return [piece.view_as(w) for piece, w in zip(pieces, weights, strict=True)]


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of the tridiagonal matrix."""
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for row, value in enumerate(beside[: len(diagonal) - 1]):
        small[row, row + 1] = small[row + 1, row] = value
    values, vectors = torch.linalg.eigh(small)
    return values, vectors


def extremes(product: Callable[[Tensor], Tensor], size: int) -> Extremes:
    """Return the ends of the spectrum of a symmetric matrix that is known by its products.

    Lanczos is started from a fixed vector; an eigenvalue that has not settled after 60 products is
    given as it is then: from inside the spectrum, so that a negative one is never invented.
    """
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if size <= DENSE:
        matrix = torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        equal = torch.full_like(values, 1 / size)
        return Extremes(float(values[0]), float(values[-1]), vectors[:, 0], _pairs(values, equal))
    basis, diagonal, beside = [start / start.norm()], [], []
    for _ in range(min(ITERATIONS, size)):
        following = product(basis[-1])
        diagonal.append(float(following @ basis[-1]))
        # Against all vectors, twice: without it rounding brings back what was found already.
        known = torch.stack(basis)
        for _ in range(2):
            following = following - known.T @ (known @ following)
        beside.append(float(following.norm()))
        values, vectors = _ritz(diagonal, beside)
        most = float(values.abs().max())
        # The residuals of the ends: by these they are off at most.
        residuals = beside[-1] * vectors[-1, [0, -1]].abs()
        if beside[-1] <= 1e-10 * most or float(residuals.max()) <= SETTLED * most:
            break
        basis.append(following / beside[-1])
    direction = torch.stack(basis[: len(diagonal)]).T @ vectors[:, 0]
    return Extremes(
        lowest=float(values[0]),
        highest=float(values[-1]),
        direction=direction / direction.norm(),
        spectrum=_pairs(values, vectors[0].square()),
    )


def _pairs(values: Tensor, weights: Tensor) -> tuple[tuple[float, float], ...]:
    return tuple(zip(values.tolist(), weights.tolist(), strict=True))
