"""Hinge loss, for two classes and for many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ravine.engine.functions import where
from ravine.errors import TargetError
from ravine.losses.bounds import Bound
from ravine.losses.loss import elementwise_loss
from ravine.losses.margin_rows import MarginRows
from ravine.losses.row_formula import RowBatch
from ravine.losses.rows import RowLoss


def not_a_sign(y):
    """Targets are -1 or +1."""
    return where(abs(y) == 1, 0.0, 1.0)


@elementwise_loss("Hinge", domain=not_a_sign, domain_text="-1 or +1", name="hinge")
def binary_hinge(x, y):
    """Hinge loss of a score x with the label y = -1 or +1.

    Equation:
        loss = max(0, 1 - y x)
    """
    margin = 1 - y * x
    # Not maximum: at margin 0 its derivative would be another one than the slope.
    value = where(margin <= 0, 0.0, margin)
    return value, where(margin > 0, -y, where(margin == margin, 0.0, margin))


class CrammerSinger(MarginRows):
    """The rows of the multi-class hinge loss."""

    bounds: Mapping[str, Bound] = {}

    def settle(
        self, scores: Tensor, values: Mapping[str, Any], checked: bool = True
    ) -> dict[str, Any]:
        return {}

    def check_target(self, batch: RowBatch) -> None:
        target, classes = batch.target, batch.scores.shape[1]
        wrong = (target < 0) | (target >= classes)
        if bool(wrong.any()):
            place = int(wrong.to(torch.uint8).argmax())
            raise TargetError(
                "hinge: a target is not one of the classes",
                where=f"row {place} of {target.numel()}",
                got=f"class {int(target[place])}",
                expected=f"0 .. {classes - 1}",
                do="count classes from 0; for labels -1 and +1 give a float target",
            )

    def reference(self, batch: RowBatch) -> Tensor:
        scores, target, factor, _ = batch
        x = scores if scores.dtype is torch.float64 else scores.float()
        if factor is not None:
            x = torch.where((factor == 0)[:, None], 0.0, x)
        own = x.gather(1, target[:, None])[:, 0]
        others = x.scatter(1, target[:, None], -torch.inf)
        # Of equal rivals the first one has the slope; amax would share it out.
        rival = others.gather(1, others.argmax(1, keepdim=True))[:, 0]
        same = rival == own  # infinite ones too
        margin = 1 + torch.where(same & rival.isinf(), 0.0, rival - own)
        loss = torch.where(margin <= 0, 0.0, margin)
        return loss if factor is None else torch.where(factor == 0, 0.0, factor * loss)


_multi_class = RowLoss("Hinge", "hinge", "", {}, CrammerSinger())


class Hinge:
    """Chooses by the type of the target, never by its values."""

    module = "Hinge"
    __name__ = "hinge"
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    settle = _multi_class.settle
    __doc__ = """Hinge loss: zero beyond a margin of 1, linear before it (linear SVM).

    Equation:
        loss = max(0, 1 - y x)                                     two classes, y = -1 or +1
        loss = max(0, 1 + max over k != y of x_k - x_y)            many classes (Crammer-Singer)

    Args:
        input: scores of the shape of the target (two classes), or (..., K).
        target: -1 and +1 in a float type; or integer classes (...) in 0..K-1.
        weight: one weight for each sample, >= 0; 0 leaves the sample out.
        reduction: "mean", "sum" or "none".
        normalizer: what the sum is divided by instead, with "mean".

    Raises:
        TargetError: a label that is not -1 or +1, or a class out of range, with its position.
        ShapeError: shapes that do not fit, or an empty batch.

    Example:
        >>> import torch
        >>> from ravine.losses import hinge
        >>> hinge(torch.tensor([0.5, -2.0]), torch.tensor([1.0, -1.0])).item()
        0.25
        >>> hinge(torch.tensor([[-1.0, -2.0]]), torch.tensor([0])).item()
        0.0

    Differs from: Keras turns labels {0, 1} into {-1, +1} when a whole batch happens to be binary;
    here {0, 1} is an error. torch's ``multi_margin_loss`` is Weston-Watkins divided by K, which is
    `multi_margin` here, a loss of its own because it has other options. Keras's
    ``CategoricalHinge`` gives 2 in the second example.

    Source: Cortes & Vapnik 1995; Crammer & Singer 2001.
    """

    def __call__(self, input: Tensor, target: Tensor, **options: Any) -> Tensor:
        many = (
            isinstance(target, Tensor)
            and isinstance(input, Tensor)
            and not target.is_floating_point()
            and input.ndim == target.ndim + 1
        )
        return (_multi_class if many else binary_hinge)(input, target, **options)

    def __repr__(self) -> str:
        return "<loss hinge>"


hinge = Hinge()
