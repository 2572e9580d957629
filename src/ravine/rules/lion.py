"""Lion: the sign of the momentum."""

from __future__ import annotations

from ravine.engine.functions import sign
from ravine.rules.rule import rule


@rule(
    "Lion", state_names={"m": "exp_avg"}, moments={"m": "signed"}, defaults={"decay": "decoupled"}
)
def lion(w, g, m, *, lr=1e-4, betas=(0.9, 0.99)):
    """Lion: every weight moves by lr, by the sign of a mix of momentum and gradient.

    Equation:
        w <- w - lr weight_decay w
        w <- w - lr sign(beta1 m + (1 - beta1) g)
        m <- beta2 m + (1 - beta2) g

    Wants an lr 3 to 10 times smaller than Adam's, and a weight_decay as many times larger.

    Differs from: optax has a default weight_decay of 1e-3; here and in the authors' code it is 0.

    Source: Chen et al. 2023, algorithm 2.
    """
    beta1, beta2 = betas
    return w - lr * sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g
