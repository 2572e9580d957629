"""Poisson negative log-likelihood."""

from __future__ import annotations

import math

from ravine.engine.functions import exp, expm1, log, where
from ravine.losses.bounds import NOT_NEGATIVE, SWITCH
from ravine.losses.loss import elementwise_loss

INFINITY, TAU = math.inf, 6.283185307179586


def not_a_count(y):
    """Targets are numbers >= 0 (counts, or rates of them)."""
    return where((y >= 0) & (y < INFINITY), 0.0, 1.0)


@elementwise_loss(
    "Poisson",
    domain=not_a_count,
    domain_text="a finite number >= 0",
    bounds={"log_input": SWITCH, "full": SWITCH, "eps": NOT_NEGATIVE},
    wide=True,
    curvature=True,
)
def poisson(x, y, *, log_input=True, full=False, eps=1e-8):
    """Poisson negative log-likelihood of counts y, of log rates or of rates x.

    Equation:
        loss = e^x - y x               with log_input
               x - y log(x + eps)      without
        and, with full, + y log(y) - y + log(2 pi y) / 2 where y > 1 (Stirling's log y!)

    Args:
        input: log rates, or rates >= 0, of any shape and float type.
        target: counts >= 0, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        log_input: whether the input is the logarithm of the rate.
        full: whether the part that does not depend on the input is added.
        eps: added to the rate, >= 0.

    Raises:
        TargetError: a target that is negative or not finite, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import poisson
        >>> poisson(torch.zeros(2), torch.tensor([1.0, 3.0]), reduction="none").tolist()
        [1.0, 1.0]

    Differs from: torch's ``poisson_nll_loss`` is the same, and takes negative targets. Keras takes
    rates (eps 1e-7). scikit-learn's ``HalfPoissonLoss`` is this with log rates.

    Source: McCullagh & Nelder 1989, chapter 6; `torch.nn.functional.poisson_nll_loss`.
    """
    if log_input:
        rate = exp(x)
        # Nothing of an infinite log rate is nothing, and no count outweighs an infinite rate.
        term = where((y == 0) & (x - x != 0), 0.0, y * x)
        value = where(rate < INFINITY, rate - term, rate)
        near = x > -0.5  # there e^x - y may be almost nothing
        slope = where(near, expm1(where(near, x, 0.0)) + (1 - y), rate - y)
        curvature = rate
    else:
        rate = x + eps
        value = x - where((y == 0) & ((rate == 0) | (rate - rate != 0)), 0.0, y * log(rate))
        slope = where(y == 0, 1.0, ((x - y) + eps) / rate)
        curvature = where(y == 0, 0.0, y / rate / rate)
    if full:
        many = where(y > 1, y, 1.0)
        value = value + where(y > 1, many * log(many) - many + 0.5 * log(TAU * many), 0.0)
    return value, slope, curvature
