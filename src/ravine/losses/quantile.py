"""Quantile (pinball) loss."""

from __future__ import annotations

from ravine.engine.functions import sign, where
from ravine.losses.bounds import number
from ravine.losses.loss import elementwise_loss


@elementwise_loss(
    "Quantile",
    curvature=True,
    bounds={"q": number(lambda q: 0 < q < 1, "a number between 0 and 1, both exclusive")},
)
def quantile(x, y, *, q=0.5):
    """Quantile (pinball) loss: its best constant is the q-quantile of the targets.

    Equation:
        loss = q (y - x)          where x <= y
               (1 - q) (x - y)    elsewhere

    Args:
        input: predicted quantiles, of any shape and float type.
        target: numbers, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        q: which quantile, 0 < q < 1.

    Raises:
        ShapeError: shapes that differ, or an empty batch with "mean".

    Example:
        >>> import torch
        >>> from ravine.losses import quantile
        >>> x, y = torch.tensor([0.0, 2.0]), torch.ones(2)
        >>> [round(v, 6) for v in quantile(x, y, q=0.9, reduction="none").tolist()]
        [0.9, 0.1]

    Differs from: scikit-learn's ``PinballLoss`` has the slope -q at x = y and the Hessian 1
    everywhere; here both are 0. With q = 1/2 it is half of the absolute error. torch has none.

    Source: Koenker & Bassett 1978.
    """
    e = x - y
    a = abs(e)
    # x - y may be too large for the type where q times it is not.
    far = a > 1e30
    m = where(far, abs(0.5 * x - 0.5 * y), a)
    over, under = where(e > 0, m, 0.0), where(e > 0, 0.0, m)
    value = ((1 - q) * over + q * under) * where(far, 2.0, 1.0)
    side = sign(e)
    return value, where(e > 0, (1 - q) * side, q * side), 0 * side
