"""Focal loss on logits, for two classes."""

from __future__ import annotations

import math

from ravine.engine.functions import abs, exp, log1p_of_fraction, where
from ravine.losses.binary_cross_entropy import outside_unit_interval
from ravine.losses.bounds import FRACTION, NOT_NEGATIVE
from ravine.losses.loss import elementwise_loss

INFINITY = math.inf


@elementwise_loss(
    "Focal",
    domain=outside_unit_interval,
    domain_text="a probability: 0, 1 or a number between",
    bounds={
        "gamma": NOT_NEGATIVE,
        "alpha": (
            lambda a: a is None or FRACTION[0](a),
            "a number from 0 to 1, or None",
        ),
    },
    wide=True,
)
def focal(x, y, *, gamma=2.0, alpha=0.25):
    """Focal loss of a logit x with the probability y of the positive class.

    Equation:
        p = 1 / (1 + e^-x)
        loss = -alpha y (1 - p)^gamma log(p) - (1 - alpha) (1 - y) p^gamma log(1 - p)

    The powers are e^(-gamma log(1 + e^x)), which is exact at saturation for every gamma >= 0.

    Args:
        input: logits, of any shape and float type.
        target: probabilities, 0 and 1 among them, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        gamma: how little easy samples count, >= 0; 0 is cross-entropy.
        alpha: what positive samples count, 0 to 1; None for no such factors.

    Raises:
        TargetError: a target outside of 0..1, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import focal
        >>> round(focal(torch.zeros(1), torch.ones(1), alpha=None).item(), 6)
        0.173287

    Differs from: the same as torchvision's ``sigmoid_focal_loss`` for targets 0 and 1 (there alpha=-1
    is None, and its mean is over elements too). Between them this is the expected loss; torchvision,
    optax and Keras mix the factors before they multiply.

    Source: Lin et al. 2017, equation 5.
    """
    # Branches, not abs and maximum: every derivative of a branch is right.
    t = exp(where(x > 0, -x, x))
    tail = log1p_of_fraction(t)
    up, down = where(x > 0, x, 0.0) + tail, where(x > 0, 0.0, -x) + tail  # -log(1 - p), -log p
    larger = 1 / (1 + t)
    p, q = where(x > 0, larger, t * larger), where(x > 0, t * larger, larger)
    if gamma in (0, 1, 2, 3, 4):  # small whole powers are products
        keen, kept = q**gamma, p**gamma
    else:
        keen, kept = exp(-gamma * up), exp(-gamma * down)
    a = keen * (y if alpha is None else alpha * y)
    b = kept * (1 - y if alpha is None else (1 - alpha) * (1 - y))
    # At an infinite logit nothing of an infinite loss is nothing.
    infinite = abs(x) == INFINITY
    value = a * where(infinite & (a == 0), 0.0, down) + b * where(infinite & (b == 0), 0.0, up)
    rising = gamma * p * where(infinite, 0.0, down) + q
    falling = gamma * q * where(infinite, 0.0, up) + p
    return value, b * falling - a * rising
