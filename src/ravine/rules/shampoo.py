"""Shampoo: a preconditioner for each dimension of a weight."""

from __future__ import annotations

import torch

from ravine.rules.matrices import along, gram, inverse_root
from ravine.rules.matrix_rule import DESCEND, elementwise, matrices, matrix_rule


def accumulate(g, m, *, momentum=0.0):
    if momentum > 0:
        m = momentum * m + (1 - momentum) * g
    return g, m


def precondition(u, m, H, P, *, t, momentum=0.0, epsilon=1e-4, precondition_frequency=1):
    H = tuple(h + gram(u, k, diagonal=h.dim() == 2) for k, h in enumerate(H))
    if t % precondition_frequency == 0 or t == 1:
        P = tuple(inverse_root(h, 2 * len(H), epsilon) for h in H)
    u = m if momentum > 0 else u
    for k, p in enumerate(P):
        u = along(u, k, p)
    return u, H, P


def average(shape, like, *, momentum=0.0):
    return like.new_zeros(shape) if momentum > 0 else None


def identities(shape, like, *, epsilon=1e-4, max_precond_dim=8192):
    return tuple(
        like.new_full((d,), epsilon)
        if d > max_precond_dim
        else torch.eye(d, dtype=like.dtype, device=like.device) * epsilon
        for d in shape
    )


def roots(shape, like, *, max_precond_dim=8192):
    return tuple(like.new_zeros((d,) if d > max_precond_dim else (d, d)) for d in shape)


shampoo = matrix_rule(
    "Shampoo",
    """Shampoo: the gradient multiplied, along each dimension, by the root of summed squares.

    Equation:
        L <- L + G G^T,   R <- R + G^T G        (epsilon I at the start)
        M <- momentum M + (1 - momentum) G      (M = G without momentum)
        W <- W - lr L^(-1/4) M R^(-1/4)

    That is a matrix; k dimensions have k preconditioners and the root 2k in place of 4 (a vector
    k = 1; scalars are stepped by AdamW). Roots are taken by eigenvalues in float64, at the first
    step and at each that ``precondition_frequency`` divides. Dimensions above ``max_precond_dim``
    have the diagonal of L only, as in the paper's section 5.

    Differs from: common PyTorch versions take the root k in place of 2k and precondition the
    gradient that is already preconditioned along the dimensions before; here the paper is followed.
    Distributed Shampoo's grafting, averages and blocks are not here. torch has no Shampoo.

    Source: Gupta, Koren & Singer 2018, algorithms 1 and 2.
    """,
    elementwise(accumulate, "u", "m"),
    matrices(precondition, "u", "H", "P"),
    DESCEND,
    kept={"m": ("momentum_buffer", average), "H": ("precond", identities), "P": ("root", roots)},
    moments={"m": "signed"},
    refuses=lambda shape: "" if shape else "0 dimensions",
    fallback={},
    defaults={"lr": 0.1},
    bounds={"epsilon": ("a number > 0", lambda x: x > 0)},
)
