"""Soft dice loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ravine.losses.overlap import mask_loss, tversky_distance


@mask_loss("Dice")
def dice(
    input: Tensor,
    target: Tensor,
    counts: Tensor | None,
    *,
    smooth: float = 1.0,
    dim: int | None = None,
    class_weight: Any = None,
    ignore_index: int = -100,
) -> Tensor:
    """Soft dice loss of each sample: 1 - how much predicted and true mask overlap.

    Equation:
        p    = sigmoid(input), or the softmax over ``dim``
        loss = 1 - (2 sum p y + smooth) / (sum p + sum y + smooth)
        with ``dim`` the mean of this over the classes; sums over all places of a sample

    Args:
        input: logits (N, ...), any float type.
        target: one mask a sample, numbers from 0 to 1 of the input's shape; with ``dim`` integer
            classes without that dimension, or probabilities of the input's shape.
        smooth: finite, >= 0. With 0 an empty mask that is found to be empty costs 0.
        dim: the dimension of the classes, 1 in torch's layout; None for two classes.
        class_weight: with ``dim``, (K,) shares of the classes in their mean, >= 0, such as 0 for the
            background; or None.
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
        >>> from ravine.losses import dice
        >>> x, y = torch.tensor([[9.0, 9.0, -9.0]]), torch.tensor([[1, 0, 0]])
        >>> round(dice(x, y, smooth=0.0).item(), 4)
        0.3334
        >>> round(dice(x.reshape(1, -1), y.reshape(1, -1)).item(), 4)  # over the whole batch
        0.25

    Differs from: V-Net squares p and y in the denominator. MONAI takes probabilities unless told
    otherwise and has smooth 1e-5; smp sums over the batch unless told otherwise, see the example.

    Two passes over the logits, one for the sums and one that reads them again and writes the gradient. With
    ``dim`` logits that lie in memory neither as (N, K, ...) nor as (N, ..., K) are copied first, with
    probabilities as targets the latter, too.

    Source: Milletari et al. 2016 for the loss; Sudre et al. 2017 without the squares.
    """
    return tversky_distance(
        input, target, counts, alpha=0.5, beta=0.5, smooth=smooth / 2,
        dim=dim, class_weight=class_weight, ignore_index=ignore_index,
    )  # fmt: skip
