"""Adadelta."""

from __future__ import annotations

from ravine.engine.functions import sqrt
from ravine.rules.rule import rule


@rule(
    "Adadelta",
    state_names={"v": "square_avg", "u": "acc_delta"},
    moments={"v": "nonnegative", "u": "nonnegative"},
    bounds={"rho": ("a number in [0, 1]", lambda x: 0 <= x <= 1)},
)
def adadelta(w, g, v, u, *, lr=1.0, rho=0.9, eps=1e-6):
    """Adadelta: steps as large as the steps before, by the ratio of two running mean squares.

    Equation:
        v <- rho v + (1 - rho) g^2
        d  = sqrt(u + eps) / sqrt(v + eps) g
        u <- rho u + (1 - rho) d^2
        w <- w - lr d

    Differs from: the paper has no lr (it is 1); Keras has lr 1e-3, rho 0.95 and eps 1e-7.

    Source: Zeiler 2012, algorithm 1; `torch.optim.Adadelta`.
    """
    v = rho * v + (1 - rho) * g * g
    d = sqrt(u + eps) / sqrt(v + eps) * g
    u = rho * u + (1 - rho) * d * d
    return w - lr * d, v, u
