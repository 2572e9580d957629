"""Triplet margin loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.losses.bounds import NOT_NEGATIVE, POSITIVE, SWITCH, number
from ravine.losses.distances import distances
from ravine.losses.samples import sample_loss
from ravine.losses.vectors import check_vectors


def _check(name: str, tensors: tuple[Tensor, ...], values: Mapping[str, Any]) -> torch.Size:
    return check_vectors(name, ("anchor", "positive", "negative"), tensors)


@sample_loss(
    "Triplet",
    check=_check,
    prepares=True,
    bounds={
        "margin": POSITIVE,
        "p": number(lambda p: 1 <= p <= math.inf, "a number >= 1"),
        "eps": NOT_NEGATIVE,
        "swap": SWITCH,
    },
)
def triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    counts: Tensor | None,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
) -> Tensor:
    """Triplet loss: the negative shall be further away than the positive, by a margin.

    Equation:
        d(u, v) = |u - v + eps|_p
        n       = d(anchor, negative), with ``swap`` the smaller of it and d(positive, negative)
        loss    = max(0, margin + d(anchor, positive) - n)

    Args:
        anchor: vectors (..., D), any float type.
        positive: vectors of the same shape, near to the anchor when it is learned.
        negative: vectors of the same shape.
        margin: finite, > 0.
        p: the norm, >= 1, or infinity.
        eps: added to each difference, finite, >= 0; with 0 the slope at distance 0 is 0.
        swap: whether the positive may stand for the anchor.
        weight: one weight for each triplet (...), >= 0; 0 leaves it out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean"; the number of active triplets
            makes this the mean over them.

    Returns:
        One number, or (...) with reduction="none"; float32 for float16 and bfloat16 input. Triplets
        beyond the margin have the slope 0, at the kink too.

    Raises:
        ShapeError: shapes that differ. ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import triplet
        >>> a, p, n = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 5.5]]])
        >>> triplet(a, p, n, eps=0.0).item()
        0.5

    Differs from: the same numbers as torch's ``triplet_margin_loss``, which has the slope of the other
    side at the kink. optax adds eps under the root, others do not add one and have the slope NaN at
    distance 0.

    Two passes over the vectors for the norm 2, one for the distances, in float64, and one that reads them
    again and writes the gradients; plain PyTorch operations for other norms and for float64.

    Source: Balntas et al. 2016; Schroff et al. 2015 has the squared distance.
    """
    vectors = anchor, positive, negative
    near, far, *other = distances(vectors, 3 if swap else 2, counts, eps=eps, p=p)
    if swap:
        far = torch.minimum(far, *other)
    excess = margin + (near - far)
    return torch.where(excess <= 0, 0.0, excess)
