"""Adam, with AMSGrad."""

from __future__ import annotations

from ravine.engine.functions import maximum, sqrt
from ravine.rules.rule import rule


@rule(
    "Adam",
    state_names={"m": "exp_avg", "v": "exp_avg_sq", "vmax": "max_exp_avg_sq"},
    moments={"m": "signed", "v": "nonnegative", "vmax": "nonnegative"},
)
def adam(w, g, m, v, vmax, *, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=False):
    """Adam: momentum divided by the root of the running mean square, both corrected for their start.

    Equation:
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
        (with amsgrad the root is of the largest v so far)

    Differs from: Keras adds eps before the correction ("epsilon hat") and has eps 1e-7; optax has a
    further ``eps_root`` inside the root. AMSGrad here and in torch takes the largest uncorrected v;
    the paper has no correction.

    Source: Kingma & Ba 2015, algorithm 1; Reddi, Kale & Kumar 2018 for AMSGrad.
    """
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    u = v
    if amsgrad:
        vmax = maximum(vmax, v)
        u = vmax
    return w - lr * (m / (1 - beta1**t)) / (sqrt(u / (1 - beta2**t)) + eps), m, v, vmax
