"""Kullback-Leibler divergence, element by element."""

from __future__ import annotations

import math

from ravine.engine.functions import abs, exp, log, where
from ravine.losses.bounds import SWITCH
from ravine.losses.loss import elementwise_loss

INFINITY = math.inf


def no_probability(y, *, log_target):
    """Targets are probabilities, or any logarithms of them."""
    if log_target:
        outside = where(y - y == 0, 0.0, where(y < 0, 0.0, 1.0))
    else:
        outside = where((y >= 0) & (y < INFINITY), 0.0, 1.0)
    return outside


@elementwise_loss(
    "KLDivergence",
    domain=no_probability,
    domain_text="a finite number >= 0; with log_target a finite number or -inf",
    bounds={"log_target": SWITCH},
    wide=True,
)
def kl_divergence(x, y, *, log_target=False):
    """Kullback-Leibler divergence of log probabilities x from the probabilities y.

    Equation:
        loss = y (log y - x)        0 where y = 0
               e^y (y - x)          with log_target

    The divergence of a distribution is the sum over its elements: ``normalizer=len(input)`` gives
    its mean over the rows (torch's "batchmean").

    Args:
        input: log probabilities, of any shape and float type.
        target: probabilities >= 0, or their logarithms, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        log_target: whether the target is the logarithm of the probability.

    Raises:
        TargetError: a target that is negative or not finite, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import kl_divergence
        >>> x, y = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]])
        >>> round(kl_divergence(x, y, normalizer=len(x)).item(), 6)
        0.693147

    Differs from: torch's ``kl_div`` is the same, "mean" over elements too; it takes negative targets
    and gives 0 for them, and its gradient by a target of 0 is not finite. Keras takes probabilities
    in both places.

    Source: Kullback & Leibler 1951; `torch.nn.functional.kl_div`.
    """
    if log_target:
        chance = exp(y)
        gone = (chance == 0) & ((y - y != 0) | (x - x != 0))
        value = where(gone, 0.0 * where(x == x, chance, x), chance * (y - x))
    else:
        chance = y
        some = where(y == 0, 1.0, y)
        gone = (y == 0) & (abs(x) == INFINITY)
        value = where(gone, 0.0, y * (log(some) - x))
    return value, where(x == x, -chance, x)
