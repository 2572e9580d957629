"""Squared hinge loss."""

from __future__ import annotations

from ravine.engine.functions import where
from ravine.losses.hinge import not_a_sign
from ravine.losses.loss import elementwise_loss


@elementwise_loss("SquaredHinge", domain=not_a_sign, domain_text="-1 or +1")
def squared_hinge(x, y):
    """Squared hinge loss of a score x with the label y = -1 or +1 (L2-SVM).

    Equation:
        loss = max(0, 1 - y x)^2

    Args:
        input: scores, of any shape and float type.
        target: -1 and +1 in a float type, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Raises:
        TargetError: a label that is not -1 or +1, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import squared_hinge
        >>> squared_hinge(torch.tensor([0.5, -2.0]), torch.tensor([1.0, -1.0])).item()
        0.125

    Differs from: Keras turns labels {0, 1} into {-1, +1} when a whole batch happens to be binary;
    here {0, 1} is an error. scikit-learn's ``LinearSVC`` has the same. torch has none.

    Source: Chang, Hsieh & Lin 2008.
    """
    margin = 1 - y * x
    short = where(margin <= 0, 0.0, margin)
    return short * short, -2 * y * short
