"""Huber loss."""

from __future__ import annotations

from ravine.engine.functions import where
from ravine.losses.loss import POSITIVE, elementwise_loss


@elementwise_loss("Huber", bounds={"delta": POSITIVE})
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
    value = where(near, 0.5 * small * small, delta * (a - 0.5 * delta))
    slope = where(near, e, where(e > 0, 1.0, -1.0) * delta)
    return value, where(e == e, slope, e)
