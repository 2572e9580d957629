"""LARS: momentum with a step in proportion to each tensor's norm."""

from __future__ import annotations

from ravine.engine.functions import tensor_norm, where
from ravine.rules.rule import rule


@rule(
    "LARS",
    state_names={"v": "momentum_buffer"},
    moments={"v": "signed"},
    bounds={"trust_coefficient": ("a number > 0", lambda x: x > 0)},
)
def lars(w, g, v, *, lr=0.1, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3):
    """LARS: momentum whose learning rate for each tensor is in proportion to its norm.

    Equation:
        local = trust_coefficient |w| / (|g| + weight_decay |w|)   (1 where |w| or the sum is 0)
        v <- momentum v + lr local (g + weight_decay w)
        w <- w - v

    The norms are over one tensor, computed in float64. lr is inside of v, as in the paper.

    Differs from: optax and timm have lr outside of the momentum and use no ratio for tensors that a
    mask leaves out; torch has no LARS.

    Source: You, Gitman & Ginsburg 2017, algorithm 1.
    """
    size = tensor_norm(w)
    length = tensor_norm(g) + weight_decay * size
    local = where((size > 0) & (length > 0), trust_coefficient * size / length, 1.0)
    v = momentum * v + lr * local * (g + weight_decay * w)
    return w - v, v
