"""Tversky loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ravine.losses.bounds import NOT_NEGATIVE, POSITIVE
from ravine.losses.overlap import mask_loss, tversky_distance


@mask_loss("Tversky", {"alpha": NOT_NEGATIVE, "beta": NOT_NEGATIVE, "gamma": POSITIVE})
def tversky(
    input: Tensor,
    target: Tensor,
    counts: Tensor | None,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    smooth: float = 1.0,
    dim: int | None = None,
    class_weight: Any = None,
    ignore_index: int = -100,
) -> Tensor:
    """Tversky loss: dice with prices of its own for what is too much and for what is missed.

    Equation:
        p    = sigmoid(input), or the softmax over ``dim``
        T    = (sum p y + smooth) / (sum p y + alpha sum p (1 - y) + beta sum (1 - p) y + smooth)
        loss = (1 - T)^gamma
        with ``dim`` the mean of this over the classes; sums over all places of a sample

    Args:
        input: logits (N, ...), any float type.
        target: one mask a sample, numbers from 0 to 1 of the input's shape; with ``dim`` integer
            classes without that dimension, or probabilities of the input's shape.
        alpha: price of false positives, finite, >= 0.
        beta: price of false negatives, finite, >= 0. Both 1/2 give dice with twice the smooth.
        gamma: finite, > 0; a perfect sample has the slope 0 for gamma < 1 too.
        smooth: finite, >= 0. With 0 an empty mask that is found to be empty costs 0.
        dim: the dimension of the classes, 1 in torch's layout; None for two classes.
        class_weight: with ``dim``, (K,) shares of the classes in their mean, >= 0, or None.
        ignore_index: places with this target are left out of the sums.
        weight: one weight for each sample (N,), >= 0; 0 leaves it out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Returns:
        One number, or (N,) with reduction="none"; float32 for float16 and bfloat16 input.

    Raises:
        TargetError: a target out of range, with its position. ShapeError: shapes that do not fit.

    Example:
        >>> import torch
        >>> from ravine.losses import tversky
        >>> x, y = torch.tensor([[9.0, 9.0, -9.0]]), torch.tensor([[1, 0, 0]])
        >>> round(tversky(x, y, alpha=0.3, beta=0.7, smooth=0.0).item(), 4)
        0.2308

    Differs from: Abraham and Khan's focal Tversky loss calls the price of false negatives alpha, and
    has the exponent 1 / gamma.

    Two passes over the logits, one for the sums and one that reads them again and writes the gradient. With
    ``dim`` logits that lie in memory neither as (N, K, ...) nor as (N, ..., K) are copied first, with
    probabilities as targets the latter, too.

    Source: Salehi et al. 2017, equation 3; Abraham & Khan 2019 for gamma.
    """
    return tversky_distance(
        input, target, counts, alpha=alpha, beta=beta, smooth=smooth, gamma=gamma,
        dim=dim, class_weight=class_weight, ignore_index=ignore_index,
    )  # fmt: skip
