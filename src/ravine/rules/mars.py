"""MARS: AdamW fed with a gradient of less variance."""

from __future__ import annotations

from ravine.engine.functions import maximum, sqrt, tensor_norm, where
from ravine.rules.rule import rule


@rule(
    "MARS",
    state_names={"m": "exp_avg", "v": "exp_avg_sq", "last": "last_grad"},
    moments={"m": "signed", "v": "nonnegative"},
    defaults={"decay": "decoupled"},
    bounds={"gamma": ("a number >= 0", lambda x: x >= 0)},
)
def mars(w, g, m, v, last, *, t, lr=3e-3, betas=(0.95, 0.99), eps=1e-8, gamma=0.025):
    """MARS-AdamW: AdamW on the gradient corrected by its change since the last step.

    Equation:
        c = g + gamma beta1 / (1 - beta1) (g - g_last)     (c = g at the first step)
        c <- c / max(1, |c|)     with the norm over one tensor
        m <- beta1 m + (1 - beta1) c
        v <- beta2 v + (1 - beta2) c^2
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    This is the paper's approximate form: g_last is the gradient of the last batch at the last
    weights. Weight decay is decoupled, times lr.

    Differs from: the authors' code takes g_last = 0 at the first step; the paper starts with no
    change, as here and in timm. Their code can leave tensors of one dimension to AdamW.

    Source: Yuan et al. 2024, algorithm 2 (MARS-AdamW).
    """
    beta1, beta2 = betas
    c = where(t == 1, g, g + gamma * (beta1 / (1 - beta1)) * (g - last))
    c = c / maximum(1.0, tensor_norm(c))
    m = beta1 * m + (1 - beta1) * c
    v = beta2 * v + (1 - beta2) * c * c
    return w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v, g
