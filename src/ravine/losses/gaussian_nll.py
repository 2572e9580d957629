"""Gaussian negative log-likelihood with a predicted variance."""

from __future__ import annotations

from ravine.engine.functions import log, where
from ravine.losses.bounds import POSITIVE, SWITCH
from ravine.losses.loss import elementwise_loss

HALF_LOG_TAU = 0.9189385332046727


def negative(v):
    """Variances are numbers >= 0."""
    return where((v >= 0) & (v - v == 0), 0.0, 1.0)


@elementwise_loss(
    "GaussianNLL",
    domains={"var": (negative, "a finite variance >= 0")},
    bounds={"full": SWITCH, "eps": POSITIVE},
    wide=True,
)
def gaussian_nll(x, y, var, *, full=False, eps=1e-6):
    """Gaussian negative log-likelihood of y for a predicted mean x and variance.

    Equation:
        v = max(var, eps)
        loss = (log v + (x - y)^2 / v) / 2,  with full + log(2 pi) / 2

    Args:
        input: predicted means, of any shape and float type.
        target: numbers, of the same shape; nothing is broadcast.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".
        var: predicted variances >= 0, of the same shape (third, or by name); may need a gradient.
        full: whether the constant is added.
        eps: the least variance, > 0.

    Raises:
        TargetError: a variance that is negative or not finite, with its position.

    Example:
        >>> import torch
        >>> from ravine.losses import gaussian_nll
        >>> gaussian_nll(torch.tensor([3.0]), torch.tensor([1.0]), torch.ones(1)).item()
        2.0

    Differs from: torch lets the gradient by the variance through its clamp as if there were none;
    here it is the derivative of the equation, 0 where var < eps. torch broadcasts the variance; here
    write ``var.expand_as(input)``.

    Source: Nix & Weigend 1994; `torch.nn.functional.gaussian_nll_loss`.
    """
    e = x - y
    kept = var >= eps
    v = where(kept, var, eps)
    r = e / v
    value = 0.5 * (log(v) + e * r)
    if full:
        value = value + HALF_LOG_TAU
    return value, r, where(kept, 0.5 * ((v - e * e) / v) / v, 0.0)
