"""Asymmetric loss on logits, for many labels."""

from __future__ import annotations

import math

from ravine.engine.functions import abs, exp, log, log1p_of_fraction, where
from ravine.losses.binary_cross_entropy import outside_unit_interval
from ravine.losses.bounds import NOT_NEGATIVE, number
from ravine.losses.loss import elementwise_loss

INFINITY = math.inf


@elementwise_loss(
    "Asymmetric",
    domain=outside_unit_interval,
    domain_text="a probability: 0, 1 or a number between",
    bounds={
        "gamma_pos": NOT_NEGATIVE,
        "gamma_neg": NOT_NEGATIVE,
        "clip": number(lambda c: 0 <= c < 1, "a number from 0 to 1, without 1"),
    },
    wide=True,
)
def asymmetric(x, y, *, gamma_pos=1.0, gamma_neg=4.0, clip=0.05):
    """Asymmetric loss of a logit x: focal, with another power for negatives and a margin for them.

    Equation:
        p = 1 / (1 + e^-x),  c = max(p - clip, 0)
        loss = -y (1 - p)^gamma_pos log(p) - (1 - y) c^gamma_neg log(1 - c)

    Args:
        input: logits, of any shape and float type.
        target: probabilities, 0 and 1 among them, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        gamma_pos: the power of positives, >= 0.
        gamma_neg: the power of negatives, >= 0.
        clip: below this probability a negative has no loss, 0 <= clip < 1.

    Raises:
        TargetError: a target outside of 0..1, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import asymmetric
        >>> asymmetric(torch.tensor([-4.0]), torch.zeros(1)).item()
        0.0

    Differs from: the authors' code clamps logarithms at 1e-8, sums, and can leave the powers out of
    the gradient; here it is the equation's. torch has none.

    Source: Ridnik et al. 2021, equations 4 to 7.
    """
    # Branches, not abs and maximum: every derivative of a branch is right.
    t = exp(where(x > 0, -x, x))
    tail = log1p_of_fraction(t)
    up, down = where(x > 0, x, 0.0) + tail, where(x > 0, 0.0, -x) + tail  # -log(1 - p), -log p
    larger = 1 / (1 + t)
    p, q = where(x > 0, larger, t * larger), where(x > 0, t * larger, larger)
    # Small whole powers are products.
    keen = q**gamma_pos if gamma_pos in (0, 1, 2, 3, 4) else exp(-gamma_pos * up)
    # At an infinite logit nothing of an infinite loss is nothing.
    infinite = abs(x) == INFINITY
    positive = keen * where(infinite & (y == 0), 0.0, down)
    rising = -keen * (gamma_pos * p * where(infinite, 0.0, down) + q)
    if clip == 0:
        kept = p**gamma_neg if gamma_neg in (0, 1, 2, 3, 4) else exp(-gamma_neg * down)
        negative = kept * where(infinite & (y == 1), 0.0, up)
        falling = kept * (gamma_neg * q * where(infinite, 0.0, up) + p)
    else:
        some = p - clip > 0
        c, rest = where(some, p - clip, 0.5), q + clip  # rest is 1 - c, to the last digit near 0
        inverse = 1 / rest
        # -log(1 - c) with what rounding took from 1 - c, which is all that there is of a small c.
        nats = where(c < 0.5, (c - (1 - rest)) * inverse, 0.0) - log(rest)
        lower = gamma_neg - 1
        steep = c**lower if lower in (0, 1, 2, 3) else exp(lower * log(c))
        negative = where(some, steep * c * nats, 0.0)
        falling = where(some, p * q * steep * (gamma_neg * nats + c * inverse), 0.0)
    return y * positive + (1 - y) * negative, y * rising + (1 - y) * falling
