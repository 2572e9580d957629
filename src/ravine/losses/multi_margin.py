"""Multi-class hinge loss over every rival class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.losses.bounds import INTEGER, Bound, number
from ravine.losses.class_arguments import check_classes, class_numbers
from ravine.losses.margin_rows import MarginRows
from ravine.losses.row_formula import RowBatch
from ravine.losses.rows import RowLoss

DOC = """Multi-class hinge after Weston and Watkins: the mean over the rivals that come too close.

    Equation:
        loss = w_y / K  sum over k != y of max(0, margin + x_k - x_y)^p

    Args:
        input: scores (..., K), any float type.
        target: classes (...), integers in 0..K-1.
        p: 1, or 2 for the squared hinge.
        margin: any finite number.
        class_weight: (K,) factors w of the classes, >= 0, or None. As in torch the mean does not
            divide by them.
        dim: the dimension of the classes; torch's layout (N, K, d1, ...) is ``dim=1``.
        weight: one weight for each sample (...), >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Returns:
        One number, or (...) with reduction="none"; float32 for float16 and bfloat16 input.

    Raises:
        TargetError: a class out of range, with its position. ShapeError: shapes that do not fit, or an
            empty batch. ArgumentError: an option out of its bounds.

    Example:
        >>> import torch
        >>> from ravine.losses import hinge, multi_margin
        >>> x, y = torch.tensor([[0.5, 0.0, 0.25]]), torch.tensor([0])
        >>> round(multi_margin(x, y).item() * 3, 6)
        1.25
        >>> hinge(x, y).item()
        0.75

    Differs from: the same numbers as torch's ``multi_margin_loss``, which calls the class weights
    ``weight`` and has the slope of the other side at the kink. Weston and Watkins have the sum, K
    times this, and a margin of 2. ``hinge`` of integer classes is Crammer and Singer's, the worst
    rival alone.

    Source: Weston & Watkins 1999, equation 1.
    """


class WestonWatkins(MarginRows):
    """The rows of the loss."""

    bounds: Mapping[str, Bound] = {
        "p": number(lambda p: p in (1, 2), "1 or 2"),
        "margin": number(math.isfinite, "a finite number"),
        "dim": INTEGER,
    }

    def settle(
        self, scores: Tensor, values: Mapping[str, Any], checked: bool = True
    ) -> dict[str, Any]:
        # Not under the name class_weight, which the mean would divide by.
        given = values["class_weight"]
        of_class = class_numbers("multi_margin", "class_weight", given, scores, checked=checked)
        return {"p": int(values["p"]), "margin": values["margin"], "times": of_class}

    def check_target(self, batch: RowBatch) -> None:
        check_classes("multi_margin", batch.target, batch.scores.shape[1], None)

    def reference(self, batch: RowBatch) -> Tensor:
        scores, target, factor, options = batch
        x = scores if scores.dtype is torch.float64 else scores.float()
        if factor is not None:
            x = torch.where((factor == 0)[:, None], 0.0, x)
        own = x.gather(1, target[:, None])
        # The difference first: 1 + 1e9 is 1e9. Equal scores differ by 0, infinite ones too.
        margin = options["margin"] + torch.where((x == own) & x.isinf(), 0.0, x - own)
        is_own = torch.arange(x.shape[1], device=x.device) == target[:, None]
        close = torch.where(is_own | (margin <= 0), 0.0, margin)
        losses = (close if options["p"] == 1 else close * close).sum(1) / x.shape[1]
        if options["times"] is not None:
            losses = losses * options["times"][target]
        return losses if factor is None else torch.where(factor == 0, 0.0, factor * losses)


multi_margin = RowLoss(
    "MultiMargin",
    "multi_margin",
    DOC,
    {"p": 1, "margin": 1.0, "class_weight": None, "dim": -1},
    WestonWatkins(),
)
