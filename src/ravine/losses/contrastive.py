"""Contrastive loss of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.errors import ShapeError
from ravine.losses.arguments import check_device, check_elements, check_is_tensor, readable
from ravine.losses.bounds import POSITIVE
from ravine.losses.distances import squares_and_distances
from ravine.losses.samples import sample_loss
from ravine.losses.vectors import check_vectors


def _check(name: str, tensors: tuple[Tensor, ...], values: Mapping[str, Any]) -> torch.Size:
    shape = check_vectors(name, ("input", "other"), tensors[:2])
    target = tensors[2]
    check_is_tensor(name, target)
    if target.shape != shape:
        raise ShapeError(
            f"{name}: there is one target for each pair",
            got=f"pairs {tuple(shape)}, target {tuple(target.shape)}",
            expected=f"a target of shape {tuple(shape)}",
        )
    check_device(name, "target", target, tensors[0])
    return shape


def _check_values(name: str, tensors: tuple[Tensor, ...], values: Mapping[str, Any]) -> None:
    target = tensors[2].detach()
    if not readable(target):
        return
    wrong = (target != 0) & (target != 1)
    check_elements(name, "target", target, wrong, "0 for a similar pair, 1 for a dissimilar one")


@sample_loss("Contrastive", check=_check, check_values=_check_values, bounds={"margin": POSITIVE})
def contrastive(
    input: Tensor,
    other: Tensor,
    target: Tensor,
    counts: Tensor | None,
    *,
    margin: float = 1.0,
) -> Tensor:
    """Contrastive loss: similar pairs shall be near each other, dissimilar ones a margin apart.

    Equation:
        d    = |input - other|
        loss = d^2 / 2                     similar pairs, target 0
               max(0, margin - d)^2 / 2    dissimilar pairs, target 1

    Args:
        input: vectors (..., D), any float type.
        other: the vectors they are compared with, of the same shape.
        target: 0 or 1 for each pair (...), in any type.
        margin: finite, > 0.
        weight: one weight for each pair (...), >= 0; 0 leaves it out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Returns:
        One number, or (...) with reduction="none"; float32 for float16 and bfloat16 input. The slope of
        a dissimilar pair at distance 0, which has no direction, is 0.

    Raises:
        TargetError: a target that is not 0 or 1, with its position. ShapeError: shapes that differ.

    Example:
        >>> import torch
        >>> from ravine.losses import contrastive
        >>> x, z = torch.zeros(2, 2), torch.tensor([[0.3, 0.4], [0.3, 0.4]])
        >>> contrastive(x, z, torch.tensor([0, 1]), reduction="none")
        tensor([0.1250, 0.1250])

    Differs from: the label is the paper's. TensorFlow Addons, sentence-transformers and others have 1
    for similar pairs: give ``1 - label``. They have no half in it.

    Two passes over the vectors, one for the distances, in float64, and one that writes the
    gradients; plain PyTorch operations for float64.

    Source: Hadsell, Chopra & LeCun 2006, equation 4.
    """
    apart = target != 0
    squares, distances = squares_and_distances(input, other, apart, counts)
    missing = margin - distances
    missing = torch.where(missing <= 0, 0.0, missing)
    return 0.5 * torch.where(apart, missing * missing, squares)
