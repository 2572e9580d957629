"""Mean squared error."""

from __future__ import annotations

from ravine.engine.functions import where
from ravine.losses.loss import elementwise_loss


@elementwise_loss("MSE", curvature=True)
def mse(x, y):
    """Mean squared error.

    Equation:
        loss = (x - y)^2

    Differs from: torch has the same mean over all elements; Keras means over the last axis first
    (equal unless samples are weighted); optax's ``l2_loss`` and scikit-learn carry a half.

    Source: Legendre 1805; `torch.nn.functional.mse_loss`.
    """
    e = x - y
    return e * e, 2 * e, where(e == e, 2.0, e)
