"""Binary cross-entropy on logits."""

from __future__ import annotations

from ravine.engine.functions import exp, log1p_of_fraction, where
from ravine.losses.loss import elementwise_loss


def outside_unit_interval(y):
    """Targets are probabilities."""
    return where((y >= 0) & (y <= 1), 0.0, 1.0)


@elementwise_loss(
    "BinaryCrossEntropy",
    domain=outside_unit_interval,
    domain_text="a probability: 0, 1 or a number between",
    curvature=True,
)
def binary_cross_entropy(x, y):
    """Binary cross-entropy of a logit x with the probability y of the positive class.

    Equation:
        loss = y log(1 + e^-x) + (1 - y) log(1 + e^x)

    Exact for confident logits too: the slope sigmoid(x) - y is computed as
    (1 - y) sigmoid(x) - y sigmoid(-x), where nothing cancels.

    Differs from: torch's ``binary_cross_entropy`` takes probabilities and clamps their log at -100;
    this is its ``binary_cross_entropy_with_logits``. Infinite logits give 0 or infinity here, NaN in
    torch.

    Source: Cox 1958; Bishop 2006, equation 4.90.
    """
    # Branches, not abs and maximum: their derivative at logit 0 would be wrong, and every derivative
    # of a branch is right. One exp for everything, and one quotient beside that of log1p: with
    # sigmoid(x) and sigmoid(-x) by themselves the pass takes a quarter longer.
    e = exp(where(x > 0, -x, x))
    larger = 1 / (1 + e)
    p = where(x > 0, larger, e * larger)  # sigmoid(x)
    miss = where(x > 0, e * larger, larger)  # sigmoid(-x)
    tail = log1p_of_fraction(e)
    positive = where(x > 0, 0.0, -x) + tail
    negative = where(x > 0, x, 0.0) + tail
    # Nothing of an infinite loss is nothing; nothing of a finite one keeps its derivative by y.
    value = where((y == 0) & (x - x != 0), 0.0, y * positive)
    value = value + where((y == 1) & (x - x != 0), 0.0, (1 - y) * negative)
    return value, (1 - y) * p - y * miss, p * miss
