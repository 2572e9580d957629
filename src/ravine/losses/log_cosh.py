"""Logarithm of the hyperbolic cosine."""

from __future__ import annotations

from ravine.engine.functions import expm1, log1p_of_fraction, where
from ravine.losses.loss import elementwise_loss

LN2 = 0.6931471805599453


@elementwise_loss("LogCosh")
def log_cosh(x, y):
    """Log-cosh loss: quadratic near the target, linear far from it, smooth everywhere.

    Equation:
        loss = log(cosh(x - y))

    Computed without overflow, and without the cancellation of |e| - log 2 near the target, as
    log(1 + (1 - v)^2 / (2 v)), v = e^|e| or e^-|e|, or |e| - log 2 + log(1 + e^(-2 |e|)).

    Args:
        input: predictions, of any shape and float type.
        target: numbers, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Raises:
        ShapeError: shapes that differ, or an empty batch with "mean".

    Example:
        >>> import torch
        >>> from ravine.losses import log_cosh
        >>> round(log_cosh(torch.tensor([1000.0]), torch.zeros(1)).item(), 2)
        999.31

    Differs from: the same in Keras (``LogCosh``) and optax (``log_cosh``), which lose all digits for
    errors below 1e-4 in float32. torch has none.

    Source: Green 1990 (as a potential); Keras `LogCosh`.
    """
    e = x - y
    # A branch, not abs: its second derivative at 0 would be wrong.
    a = where(e < 0, -e, e)
    near = a < 1
    # Of e^a and e^-a the one whose rounding counts less: 3.9 ulp of float32 at most, 4.5 with either.
    rising = near & (a > 0.35)
    t = expm1(where(rising, a, -a))
    v = 1 + t
    tail = log1p_of_fraction(where(near, 0.5 * t * t / where(near, v, 1.0), v * v))
    double = t * (1 + v)  # e^2a - 1 or e^-2a - 1
    part = where(near, double, 2 * v * v) / where(near, double + 2, 1 + v * v)
    slope = where(near, where(rising, part, -part), 1 - part)  # tanh a
    return where(near, tail, a - LN2 + tail), where(e < 0, -slope, slope)
