"""Adamax: Adam with the largest gradient in the place of the root of the mean square."""

from __future__ import annotations

from ravine.engine.functions import abs, maximum
from ravine.rules.rule import rule


@rule(
    "Adamax",
    state_names={"m": "exp_avg", "u": "exp_inf"},
    moments={"m": "signed", "u": "nonnegative"},
)
def adamax(w, g, m, u, *, t, lr=2e-3, betas=(0.9, 0.999), eps=1e-8):
    """Adamax: momentum divided by the largest gradient, which fades with beta2.

    Equation:
        m <- beta1 m + (1 - beta1) g
        u <- max(beta2 u, |g| + eps)
        w <- w - lr / (1 - beta1^t) m / u

    Differs from: the paper has no eps; here, as in torch, it is added to |g|; optax adds it to |g|
    too, Keras to u in the division (1e-7).

    Source: Kingma & Ba 2015, algorithm 2; `torch.optim.Adamax`.
    """
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    u = maximum(beta2 * u, abs(g) + eps)
    return w - lr / (1 - beta1**t) * m / u, m, u
