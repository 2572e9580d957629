"""Perceptron loss."""

from __future__ import annotations

from ravine.engine.functions import where
from ravine.losses.hinge import not_a_sign
from ravine.losses.loss import elementwise_loss


@elementwise_loss("Perceptron", domain=not_a_sign, domain_text="-1 or +1")
def perceptron(x, y):
    """Perceptron loss of a score x with the label y = -1 or +1.

    Equation:
        loss = max(0, -y x)

    The slope at 0 is -y, so that weights that start at 0 learn.

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
        >>> from ravine.losses import perceptron
        >>> perceptron(torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0])).item()
        1.0

    Differs from: the same as scikit-learn's ``SGDClassifier(loss="perceptron")``, its slope at 0
    included. Keras and torch have none.

    Source: Rosenblatt 1958; Bishop 2006, equation 4.54.
    """
    margin = y * x
    return where(margin > 0, 0.0, -margin), where(
        margin <= 0, -y, where(margin == margin, 0.0, margin)
    )
