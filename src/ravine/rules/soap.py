"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from ravine.engine.functions import maximum, sqrt, where
from ravine.rules.matrices import eigenbasis, gram, refined_eigenbasis, reordered, turned
from ravine.rules.matrix_rule import DESCEND, elementwise, matrices, matrix_rule, not_a_matrix


def average(g, m, *, t, betas=(0.95, 0.95)):
    beta1, _ = betas
    return g, where(t == 1, 0.0, beta1 * m + (1 - beta1) * g)


def rotate(p, m, Q):
    return turned(p, Q), turned(m, Q)


def adam(x, u, v, *, t, betas=(0.95, 0.95), eps=1e-8):
    beta1, beta2 = betas
    v = where(t == 1, 0.0, beta2 * v + (1 - beta2) * x * x)
    k = maximum(t - 1, 1)
    scale = sqrt(1 - beta2**k) / (1 - beta1**k)
    return where(t == 1, 0.0, scale * u / (sqrt(v) + eps)), v


def rotate_back(u, Q):
    return turned(u, Q, back=True)


def refresh(p, v, GG, Q, *, t, shampoo_beta=0.95, precondition_frequency=10):
    GG = [h if h is None else h.lerp(gram(p, k), 1 - shampoo_beta) for k, h in enumerate(GG)]
    if t == 1:
        return v, GG, [h if h is None else eigenbasis(h) for h in GG]
    if (t - 1) % precondition_frequency == 0:
        Q = list(Q)
        for k, h in enumerate(GG):
            if h is not None:
                Q[k], order = refined_eigenbasis(h, Q[k])
                v = reordered(v, k, order)
    return v, GG, Q


def squares(shape, like, *, max_precond_dim=10000):
    return tuple(None if d > max_precond_dim else like.new_zeros(d, d) for d in shape)


soap = matrix_rule(
    "SOAP",
    """SOAP: Adam on the gradient rotated into the eigenbasis of Shampoo's preconditioner.

    Equation:
        M <- beta1 M + (1 - beta1) G,   G' = Q_L^T G Q_R,   M' = Q_L^T M Q_R
        V <- beta2 V + (1 - beta2) G'^2
        W <- W - lr Q_L (corrected M' / (sqrt(V) + eps)) Q_R^T
        L <- shampoo_beta L + (1 - shampoo_beta) G G^T,   R alike with G^T G
        Q <- QR(H Q), in the order of its eigenvalues, every ``precondition_frequency`` steps

    That is a matrix; every dimension of others has its H and Q. The first step only makes Q, as in
    the authors' code: t counts from the second. Dimensions above ``max_precond_dim`` are not
    rotated. Weights below 2 dimensions are stepped by AdamW.

    Differs from: the authors' code decays weights after the step, not at the first one, merges
    dimensions and can normalise gradients. As there, V is put in order but not rotated.

    Source: Vyas et al. 2024, algorithm 3, and the authors' code.
    """,
    elementwise(average, "p", "m"),
    matrices(rotate, "x", "u"),
    elementwise(adam, "u", "v"),
    matrices(rotate_back, "u"),
    DESCEND,
    matrices(refresh, "v", "GG", "Q"),
    kept={"m": "exp_avg", "v": "exp_avg_sq", "GG": ("GG", squares), "Q": ("Q", squares)},
    refuses=not_a_matrix,
    fallback={"adamw_betas": (0.95, 0.95)},
    defaults={"lr": 3e-3, "weight_decay": 1e-2, "decay": "decoupled"},
)
