"""Tweedie loss with a logarithmic link."""

from __future__ import annotations

import math

from ravine.engine.functions import exp, expm1, where
from ravine.losses.bounds import number
from ravine.losses.loss import elementwise_loss

INFINITY = math.inf


def impossible(y, *, power):
    """What a Tweedie distribution of this power can give."""
    if power <= 0:
        outside = where(y - y == 0, 0.0, 1.0)
    elif power < 2:
        outside = where((y >= 0) & (y < INFINITY), 0.0, 1.0)
    else:
        outside = where((y > 0) & (y < INFINITY), 0.0, 1.0)
    return outside


@elementwise_loss(
    "Tweedie",
    domain=impossible,
    domain_text="a finite number; with power >= 1 not negative, with power >= 2 > 0",
    bounds={
        "power": number(
            lambda p: math.isfinite(p) and not 0 < p < 1,
            "a finite number that is not between 0 and 1, where there is no distribution",
        )
    },
    wide=True,
    curvature=True,
)
def tweedie(x, y, *, power=1.5):
    """Tweedie loss of the logarithm x of the mean: half of the deviance, without its constant.

    Equation:
        loss = e^((2 - power) x) / (2 - power) - y e^((1 - power) x) / (1 - power)
               e^x - y x             power 1, Poisson
               x + y e^-x            power 2, gamma
               (e^x - y)^2 / 2       power 0, normal

    Args:
        input: logarithms of means, of any shape and float type.
        target: numbers; >= 0 with power >= 1, > 0 with power >= 2, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        power: of the mean in the variance; not between 0 and 1.

    Raises:
        TargetError: a target that the distribution cannot give, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import tweedie
        >>> tweedie(torch.zeros(2), torch.tensor([0.0, 1.0]), reduction="none").tolist()
        [2.0, 4.0]

    Differs from: the same as scikit-learn's ``HalfTweedieLoss``. torch has none.

    Source: Jorgensen 1987; Dunn & Smyth 2005.
    """
    near = abs(x) < 0.5  # there the parts of the slope may be almost the same
    if power == 1.5:  # one exponential for both
        rising = exp(0.5 * x)
        inverse = 1 / rising
        falling = where((y == 0) & (rising == 0), 0.0, y * inverse)
        value = 2 * (rising + falling)
        slope = where(
            near,  # e^x - 1 by half of it, so that exp and expm1 are of one number
            ((1 - y) + expm1(where(near, 0.5 * x, 0.0)) * (1 + rising)) * inverse,
            rising - falling,
        )
        curvature = 0.5 * (rising + falling)
    else:
        # e^((1 - power) x) times what is left, or e^((2 - power) x): of the two the one whose other
        # factor stays finite.
        up = (x > 0) | ((y == 0) & (x < -700))
        common = exp(where(up, (2 - power) * x, (1 - power) * x))
        # exp and expm1 of one number: on the CPU they are computed together.
        less = where(x > 0, -x, x)
        left, right = where(up, 1.0, exp(less)), y * where(x > 0, exp(less), 1.0)
        if power == 0:
            value = 0.5 * (exp(x) - y) ** 2
        elif power == 1:
            value = where((x > 0) & (common - common != 0), common, common * left - y * x)
        elif power == 2:
            value = where((x < 0) & (common - common != 0), common * right, x + common * right)
        else:
            value = common * (left / (2 - power) - right / (1 - power))
        bend = expm1(less)
        gap = where(near, (1 - y) + where(x > 0, -y * bend, bend), left - right)
        slope, curvature = common * gap, common * ((2 - power) * left - (1 - power) * right)
    return value, slope, curvature
