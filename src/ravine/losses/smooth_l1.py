"""Smooth L1 loss."""

from __future__ import annotations

import math

from ravine.engine.functions import sign, where
from ravine.losses.bounds import number
from ravine.losses.loss import elementwise_loss


@elementwise_loss(
    "SmoothL1",
    bounds={
        "beta": number(lambda b: b == 0 or 1e-30 <= b < math.inf, "0, or a finite number >= 1e-30")
    },
)
def smooth_l1(x, y, *, beta=1.0):
    """Smooth L1 loss: the absolute error, rounded off within beta of the target.

    Equation:
        e = x - y
        loss = e^2 / (2 beta)     where |e| < beta
               |e| - beta / 2     elsewhere; with beta = 0 everywhere

    Args:
        input: predictions, of any shape and float type.
        target: numbers, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        beta: where the rounding ends, 0 or >= 1e-30.

    Raises:
        ShapeError: shapes that differ, or an empty batch with "mean".

    Example:
        >>> import torch
        >>> from ravine.losses import smooth_l1
        >>> smooth_l1(torch.tensor([0.5, 3.0]), torch.zeros(2), reduction="none").tolist()
        [0.125, 2.5]

    Differs from: the same in torch. Huber is this times its delta: for beta to 0 this goes to |e|,
    Huber to 0.

    Source: Girshick 2015, equation 3; `torch.nn.functional.smooth_l1_loss`.
    """
    e = x - y
    a = abs(e)
    if beta == 0:
        value, slope = a, sign(e)
    else:
        near = a < beta
        small = where(near, e, 0.0)  # what is infinite must not be squared on the way back
        value = where(near, small * (small / (2 * beta)), a - 0.5 * beta)
        slope = where(near, small / beta, sign(e))
    return value, slope
