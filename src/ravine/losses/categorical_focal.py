"""Focal loss over classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.losses.bounds import NOT_NEGATIVE
from ravine.losses.of_cross_entropy import OfCrossEntropy
from ravine.losses.rows import RowLoss

DOC = """Categorical focal loss: cross-entropy that counts little where the class is already certain.

    Equation:
        c    = -log softmax(x)_y
        loss = alpha_y (1 - exp(-c))^gamma c

    Args:
        input: logits (..., K), any float type.
        target: classes (...), integers in 0..K-1 or ``ignore_index``.
        gamma: finite, >= 0; 0 gives cross-entropy.
        alpha: (K,) factors of the classes, >= 0, or None. They are no weights: the mean does not
            divide by them.
        ignore_index: the class of samples that are left out: zero loss, zero gradient.
        dim: the dimension of the classes; torch's layout (N, K, d1, ...) is ``dim=1``.
        weight: one weight for each sample (...), >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean"; the paper's is the number of
            anchors that are assigned to an object.

    Returns:
        One number, or (...) with reduction="none"; float32 for float16 and bfloat16 input. A certain
        sample has the slope 0 for every gamma, also for gamma < 1.

    Raises:
        TargetError: a class out of range, with its position. ShapeError: shapes that do not fit, or an
            empty batch. ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import categorical_focal
        >>> x, y = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
        >>> round(categorical_focal(x, y, gamma=2.0).item(), 6)
        0.010869

    Differs from: Keras takes probabilities unless told otherwise, clips them at 1e-7, and has
    alpha = 0.25. The binary focal loss of torchvision and kornia has two alphas, one for each label.

    Source: Lin et al. 2017, equation 5, with the softmax in place of the sigmoid.
    """

CERTAIN = 50.0
"""A cross-entropy from which exp(-c) changes no number any more, in float64 neither."""


def curve(entropy: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Return (1 - exp(-c))^gamma c, all derivatives of which stay finite at c = 0 and infinity."""
    gamma = options["gamma"]
    if gamma == 0:
        return entropy
    # The power's derivatives by 1 - p are infinite at 0; those by the logits are 0, as 1 - p is.
    unsure = ~(entropy <= torch.finfo(entropy.dtype).tiny)
    c = torch.where(unsure, entropy, 1.0).double()  # a logarithm times gamma loses digits
    near = c < CERTAIN
    miss = torch.where(near, -torch.where(near, -c, -1.0).expm1(), 1.0)
    return torch.where(unsure, c * (gamma * miss.log()).exp(), 0.0).to(entropy.dtype)


categorical_focal = RowLoss(
    "CategoricalFocal",
    "categorical_focal",
    DOC,
    {"gamma": 2.0, "alpha": None, "ignore_index": -100, "dim": -1},
    OfCrossEntropy("categorical_focal", curve, {"gamma": NOT_NEGATIVE}, by_class="alpha"),
)
