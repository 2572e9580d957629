"""Huber loss."""

from __future__ import annotations

from ravine.engine.functions import where
from ravine.losses.bounds import POSITIVE
from ravine.losses.loss import elementwise_loss


@elementwise_loss("Huber", bounds={"delta": POSITIVE}, curvature=True)
def huber(x, y, *, delta=1.0):
    """Huber loss: quadratic near the target, linear far from it.

    Equation:
        e = x - y
        loss = e^2 / 2                    where |e| <= delta
               delta (|e| - delta / 2)    elsewhere

    Differs from: the same in torch, Keras, optax and scikit-learn. SmoothL1 is this divided by
    delta. For delta to 0 this goes to 0, SmoothL1 to |e|.

    Source: Huber 1964, equation 2.
    """
    e = x - y
    a = abs(e)
    near = a <= delta
    small = where(near, e, 0.0)  # the square of what is infinite must not be on the way back
    # x - y may be too large for the type where delta times it is not.
    half = abs(0.5 * x - 0.5 * y)
    far = where(a > 1e30, (2 * delta) * (half - 0.25 * delta), delta * (a - 0.5 * delta))
    value = where(near, 0.5 * small * small, far)
    slope = where(near, e, where(e > 0, 1.0, -1.0) * delta)
    return value, where(e == e, slope, e), where(near, 1.0, where(e == e, 0.0, e))
