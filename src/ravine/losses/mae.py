"""Mean absolute error."""

from __future__ import annotations

from ravine.engine.functions import sign
from ravine.losses.loss import elementwise_loss


@elementwise_loss("MAE", curvature=True)
def mae(x, y):
    """Mean absolute error; its best constant is the median.

    Equation:
        loss = |x - y|

    Args:
        input: predictions, of any shape and float type.
        target: numbers, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Raises:
        ShapeError: shapes that differ, or an empty batch with "mean".

    Example:
        >>> import torch
        >>> from ravine.losses import mae
        >>> mae(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])).item()
        1.5

    Differs from: the same in torch (``l1_loss``), Keras and scikit-learn, but that scikit-learn's
    slope at x = y is -1 and its Hessian 1 everywhere; here both are 0.

    Source: Laplace 1774; `torch.nn.functional.l1_loss`.
    """
    e = x - y
    return abs(e), sign(e), 0 * sign(e)
