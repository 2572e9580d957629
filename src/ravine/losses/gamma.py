"""Gamma loss with a logarithmic link."""

from __future__ import annotations

import math

from ravine.engine.functions import exp, expm1, where
from ravine.losses.loss import elementwise_loss

INFINITY = math.inf


def not_positive(y):
    """Targets are numbers > 0."""
    return where((y > 0) & (y < INFINITY), 0.0, 1.0)


@elementwise_loss(
    "Gamma",
    domain=not_positive,
    domain_text="a finite number > 0",
    wide=True,
    curvature=True,
)
def gamma(x, y):
    """Gamma loss of the logarithm x of the mean, for positive targets.

    Equation:
        loss = x + y e^-x

    This is half of the gamma deviance without its constant, 1 + log y, and the negative
    log-likelihood over the shape parameter.

    Args:
        input: logarithms of means, of any shape and float type.
        target: numbers > 0, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Raises:
        TargetError: a target that is not finite and > 0, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import gamma
        >>> gamma(torch.zeros(2), torch.tensor([1.0, 3.0]), reduction="none").tolist()
        [1.0, 3.0]

    Differs from: the same as scikit-learn's ``HalfGammaLoss``. torch has none.

    Source: McCullagh & Nelder 1989, chapter 8.
    """
    ratio = y * exp(-x)
    value = where(ratio < INFINITY, x + ratio, ratio)
    near = abs(x) < 0.5  # there 1 - y e^-x may be almost nothing
    slope = where(near, (1 - y) - y * expm1(where(near, -x, 0.0)), 1 - ratio)
    return value, slope, ratio
