"""LAMB: Adam with a step in proportion to each tensor's norm."""

from __future__ import annotations

from ravine.engine.functions import sqrt, tensor_norm, where
from ravine.rules.rule import rule


@rule(
    "LAMB",
    state_names={"m": "exp_avg", "v": "exp_avg_sq"},
    moments={"m": "signed", "v": "nonnegative"},
)
def lamb(w, g, m, v, *, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    """LAMB: Adam's direction, scaled tensor by tensor to the norm of the weights.

    Equation:
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w
        w <- w - lr |w| / |u| u      (the ratio is 1 where either norm is 0)

    The norms are over one tensor, computed in float64. Weight decay is inside of u.

    Differs from: NVIDIA's LAMB first divides by the gradient's norm (``clip_norm=1``); TensorFlow
    Addons leaves out the correction; optax and timm do as here. The paper's phi is the identity.

    Source: You et al. 2020, algorithm 2.
    """
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    u = (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * w
    size, length = tensor_norm(w), tensor_norm(u)
    ratio = where((size > 0) & (length > 0), size / length, 1.0)
    return w - lr * ratio * u, m, v
