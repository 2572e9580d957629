"""NAdam: Adam with Nesterov's look-ahead."""

from __future__ import annotations

from ravine.engine.functions import sqrt
from ravine.rules.rule import rule


@rule(
    "NAdam",
    state_names={"m": "exp_avg", "v": "exp_avg_sq"},
    moments={"m": "signed", "v": "nonnegative"},
    numbers={"mu_product": 1.0},
    bounds={"momentum_decay": ("a number >= 0", lambda x: x >= 0)},
)
def nadam(w, g, m, v, *, t, mu_product, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, momentum_decay=4e-3):
    """NAdam: Adam whose momentum looks a step ahead, with a momentum that grows from step to step.

    Equation:
        mu_t  = beta1 (1 - 0.5 0.96^(t momentum_decay)),   P <- P mu_t  (mu_product, from 1)
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr (mu_{t+1} m / (1 - P mu_{t+1}) + (1 - mu_t) g / (1 - P))
                 / (sqrt(v / (1 - beta2^t)) + eps)

    Differs from: optax has a constant momentum beta1 and corrects by t + 1. torch keeps mu_product in
    float32; here it is float64.

    Source: Dozat 2016, algorithm 8 and its momentum schedule; `torch.optim.NAdam`.
    """
    beta1, beta2 = betas
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    ahead = mu_next / (1 - mu_product * mu_next) * m + (1 - mu) / (1 - mu_product) * g
    return w - lr * ahead / (sqrt(v / (1 - beta2**t)) + eps), m, v, mu_product
