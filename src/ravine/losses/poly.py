"""Poly-1 loss over classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ravine.losses.bounds import at_least
from ravine.losses.of_cross_entropy import OfCrossEntropy
from ravine.losses.rows import RowLoss

DOC = """Poly-1: cross-entropy with another coefficient of the first power of 1 - p.

    Equation:
        c    = -log softmax(x)_y
        loss = c + epsilon (1 - exp(-c))

    Args:
        input: logits (..., K), any float type.
        target: classes (...), integers in 0..K-1 or ``ignore_index``.
        epsilon: finite, >= -1; 0 gives cross-entropy. Below -1 the loss would grow with p.
        class_weight: (K,) weights of the classes, >= 0, or None.
        ignore_index: the class of samples that are left out: zero loss, zero gradient.
        dim: the dimension of the classes; torch's layout (N, K, d1, ...) is ``dim=1``.
        weight: one weight for each sample (...), >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Returns:
        One number, or (...) with reduction="none"; float32 for float16 and bfloat16 input. The mean
        divides by the sum of sample weight times class weight.

    Raises:
        TargetError: a class out of range, with its position. ShapeError: shapes that do not fit, or an
            empty batch. ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import poly
        >>> x, y = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
        >>> round(poly(x, y, epsilon=1.0).item(), 6)
        0.452559

    Differs from: the authors' code also takes smoothed labels; here the classes are integers.

    Source: Leng et al. 2022, section 4.
    """


def curve(entropy: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Return c + epsilon (1 - exp(-c))."""
    epsilon: float = options["epsilon"]
    return entropy - epsilon * (-entropy).expm1()


poly = RowLoss(
    "Poly",
    "poly",
    DOC,
    {"epsilon": 1.0, "class_weight": None, "ignore_index": -100, "dim": -1},
    OfCrossEntropy("poly", curve, {"epsilon": at_least(-1)}, by_class="class_weight"),
)
