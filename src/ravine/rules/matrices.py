"""What matrix rules compute with whole matrices, on stacks: any number of leading dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_matrices(stack: Tensor, stacked: bool | None = None) -> Tensor:
    """Return weights of one shape, counted by dimension 0, as matrices.

    [n, r, c] stays. With a further dimension in front, [n, k, r, c] (a stack of matrices in one
    weight) stays too; [n, o, i, ...] of 4 and more (convolution kernels) becomes [n, o, i * ...].

    Args:
        stack: the weights.
        stacked: whether dimensions of a weight before its last two count matrices; without it those
            of a weight of 3 dimensions do.
    """
    if stacked is None:
        stacked = stack.dim() <= 4
    return stack if stacked or stack.dim() <= 3 else stack.flatten(2)


def newton_schulz(
    matrices: Tensor, coefficients: Sequence[float], steps: int, eps: float, dtype: torch.dtype
) -> Tensor:
    """Return U S' V^T for matrices U S V^T, with the singular values S' near 1.

    Equation:
        X <- X / max(|X|, eps),   then ``steps`` times   X <- a X + (b A + c A^2) X,   A = X X^T

    A tall matrix is iterated transposed. Singular values below about eps, and those of a zero matrix,
    stay near 0. The norm is taken in float64, so that it neither overflows nor vanishes.

    Args:
        matrices: [..., r, c].
        coefficients: a, b, c of the polynomial.
        steps: how often.
        eps: the smallest norm that is divided by.
        dtype: what to compute in.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    a, b, c = coefficients
    tall = matrices.size(-2) > matrices.size(-1)
    x = (matrices.mT if tall else matrices).to(dtype)
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float64)
    x = x / norm.clamp(min=eps).to(dtype)
    shape = x.shape
    # One matrix is multiplied as torch.optim.Muon does it: to the same bit.
    x = x.reshape(shape[-2:]) if x.shape[:-2].numel() == 1 else x.reshape(-1, *shape[-2:])
    product = torch.addmm if x.dim() == 2 else torch.baddbmm
    for _ in range(steps):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.reshape(shape)
    return x.mT if tall else x


def along(stack: Tensor, dim: int, matrices: Tensor) -> Tensor:
    """Multiply dimension ``dim`` of each weight with its matrix: sum_j matrices[n, i, j] w[.. j ..].

    Args:
        stack: [n, d_0, d_1, ...].
        dim: which d.
        matrices: [n, d, d], or [n, d] for diagonal ones.
    """
    moved = stack.movedim(dim + 1, 1)
    if matrices.dim() == 2:
        product = moved * matrices.view(*matrices.shape, *[1] * (moved.dim() - 2))
    else:
        product = (matrices @ moved.reshape(*moved.shape[:2], -1)).view(moved.shape)
    return product.movedim(1, dim + 1)


def turned(stack: Tensor, bases: Sequence[Tensor | None], *, back: bool = False) -> Tensor:
    """Write weights in the bases of their dimensions, Q^T W Q for a matrix, or back: Q W Q^T.

    Args:
        stack: [n, d_0, d_1, ...].
        bases: of each dimension the orthogonal [n, d, d], or None.
        back: whether ``stack`` is in these bases.
    """
    for k, basis in enumerate(bases):
        if basis is not None:
            stack = along(stack, k, basis if back else basis.mT)
    return stack


def gram(stack: Tensor, dim: int, *, diagonal: bool = False) -> Tensor:
    """Return G G^T of each weight, unfolded so that dimension ``dim`` is the rows; or its diagonal."""
    rows = stack.movedim(dim + 1, 1).reshape(len(stack), stack.size(dim + 1), -1)
    return rows.square().sum(-1) if diagonal else rows @ rows.mT


def eigenbasis(matrices: Tensor) -> Tensor:
    """Return the eigenvectors of symmetric matrices as columns, largest eigenvalue first.

    Computed in float64; of a matrix that is not finite they are NaN.
    """
    _, vectors = _eigh(matrices)
    return vectors.flip(-1).to(matrices.dtype)


def refined_eigenbasis(matrices: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return a basis improved by one power iteration and a QR decomposition, and the new order.

    The columns are put in the order of their estimated eigenvalues, largest first; the order says
    which old column each new one came from: [n, d].
    """
    product = matrices @ basis
    estimates = (basis * product).sum(-2)
    order = torch.argsort(estimates, dim=-1, descending=True, stable=True)
    sorted_product = product.gather(-1, order.unsqueeze(-2).expand_as(product))
    return torch.linalg.qr(sorted_product)[0], order


def reordered(stack: Tensor, dim: int, order: Tensor) -> Tensor:
    """Put the slices of dimension ``dim`` of each weight in an order of its own: [n, d]."""
    index = order.view(len(order), *[-1 if k == dim else 1 for k in range(stack.dim() - 1)])
    return stack.gather(dim + 1, index.expand_as(stack))


def inverse_root(matrices: Tensor, order: float, least: float) -> Tensor:
    """Return H^(-1/order) of symmetric positive matrices [n, d, d], or diagonals [n, d].

    Computed in float64 by eigenvalues, none taken smaller than ``least`` (which rounding may have
    made of those that were added to begin with); NaN where a matrix is not finite.
    """
    if matrices.dim() == 2:
        return matrices.clamp(min=least) ** (-1 / order)
    values, vectors = _eigh(matrices)
    roots = values.clamp(min=least) ** (-1 / order)
    return ((vectors * roots.unsqueeze(-2)) @ vectors.mT).to(matrices.dtype)


def _eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors in float64; NaN, not an exception, of what is not finite."""
    finite = torch.isfinite(matrices).all(-1).all(-1)
    identity = torch.eye(matrices.size(-1), dtype=torch.float64, device=matrices.device)
    safe = torch.where(finite[:, None, None], matrices.double(), identity)
    values, vectors = torch.linalg.eigh(safe)
    nan = values.new_full((), torch.nan)
    return (
        torch.where(finite[:, None], values, nan),
        torch.where(finite[:, None, None], vectors, nan),
    )
