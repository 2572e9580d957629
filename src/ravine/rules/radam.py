"""RAdam: Adam that waits until its root can be trusted."""

from __future__ import annotations

from ravine.engine.functions import sqrt, where
from ravine.rules.rule import rule


@rule(
    "RAdam",
    state_names={"m": "exp_avg", "v": "exp_avg_sq"},
    moments={"m": "signed", "v": "nonnegative"},
)
def radam(w, g, m, v, *, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """RAdam: momentum alone while few gradients are known, then Adam, rectified for its variance.

    Equation:
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        n = 2 / (1 - beta2) - 1,   rho = n - 2 t beta2^t / (1 - beta2^t)
        r = sqrt((rho - 4) (rho - 2) n / ((n - 4) (n - 2) rho))
        w <- w - lr m / (1 - beta1^t) r sqrt(1 - beta2^t) / (sqrt(v) + eps)   where rho > 5
        w <- w - lr m / (1 - beta1^t)                                         elsewhere

    Differs from: the paper rectifies from rho > 4, torch, optax and the authors' code from 5. The
    authors' code decays the weights on their own, ``decay="decoupled"`` here and
    ``decoupled_weight_decay=True`` in torch.

    Source: Liu et al. 2020, algorithm 2; `torch.optim.RAdam`.
    """
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    n = 2 / (1 - beta2) - 1
    rho = n - 2 * t * beta2**t / (1 - beta2**t)
    r = sqrt((rho - 4) * (rho - 2) * n / ((n - 4) * (n - 2) * rho))
    adaptive = r * sqrt(1 - beta2**t) / (sqrt(v) + eps)
    return w - lr / (1 - beta1**t) * m * where(rho > 5, adaptive, 1.0), m, v
