"""Losses of whole samples: pairs and triplets of vectors, images with their masks.

Such a loss is a function of its tensors that returns one number for each sample, in float32 or float64. It
is made of plain PyTorch operations, so that every transform and every order of derivative is
autograd's; where they would pass over large tensors again and again they are one node with kernels
(`mask_overlap`, `class_overlap`, `distances`, `cross_entropy`). Here is what all of them share: names and
number of the tensors, sample weights, reductions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.errors import ArgumentTypeError
from ravine.losses.arguments import (
    check_not_empty,
    check_reduction,
    check_weight,
    is_checked,
    needs_gradient,
    plain_only,
    refuse_capture,
)
from ravine.losses.bounds import Bound, settled
from ravine.losses.reduction import reduced, weights_sum

Tensors = tuple[Tensor, ...]
Values = Mapping[str, Any]


class SampleLoss:
    """A loss ``equation(*tensors, counts, *, hyperparameters) -> one loss a sample``.

    Args:
        module: the name of its `torch.nn.Module`.
        equation: the formula, on tensors in the type of the arithmetic. ``counts`` says which samples
            have a weight that is not 0; None if there are no weights.
        check: (name, tensors, hyperparameters) -> the shape of the samples, with which every tensor's
            shape begins; raises where shapes and types do not fit.
        check_values: (name, tensors, hyperparameters), raises for targets that cannot be used. What
            belongs to left out samples is 0 there.
        bounds: hyperparameter -> (test, the bound in words).
        prepares: the equation takes tensors as they are, and does what `counted` would.
    """

    def __init__(
        self,
        module: str,
        equation: Callable[..., Tensor],
        check: Callable[[str, Tensors, Values], torch.Size],
        check_values: Callable[[str, Tensors, Values], None] | None,
        bounds: Mapping[str, Bound],
        prepares: bool = False,
    ) -> None:
        self.module = module
        self.equation = equation
        self.check = check
        self.check_values = check_values
        self.bounds = bounds
        self.prepares = prepares
        self.__name__ = equation.__name__
        self.__doc__ = equation.__doc__
        parameters = inspect.signature(equation).parameters.values()
        self.inputs = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY][:-1]
        self.hyperparameters = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def settle(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, checked against their bounds."""
        return settled(self.__name__, hyperparameters, self.hyperparameters, self.bounds)

    def __call__(
        self,
        *tensors: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: float | Tensor | None = None,
        check: str = "on",
        **options: Any,
    ) -> Tensor:
        name = self.__name__
        while len(tensors) < len(self.inputs) and self.inputs[len(tensors)] in options:
            tensors = (*tensors, options.pop(self.inputs[len(tensors)]))
        values = self.settle(options)
        checked = is_checked(name, check)
        check_reduction(name, reduction, normalizer, checked)
        if len(tensors) != len(self.inputs):
            raise ArgumentTypeError(
                f"{name}: takes {len(self.inputs)} tensors",
                got=f"{len(tensors)}",
                expected=", ".join(self.inputs),
            )
        if checked and (self.check_values is not None or weight is not None):
            refuse_capture(name, tensors[0])
        shape = self.check(name, tensors, values)
        check_not_empty(name, shape.numel(), reduction, normalizer)
        factor = None
        if weight is not None:
            factor = check_weight(name, weight, shape, tensors[0], checked)
        losses = self._losses(tensors, factor, values, shape, checked)
        return reduced(losses, reduction, normalizer, lambda: weights_sum(factor, losses))

    def _losses(
        self,
        tensors: Tensors,
        factor: Tensor | None,
        values: Values,
        shape: torch.Size,
        checked: bool,
    ) -> Tensor:
        """Return the loss of each sample times its weight."""
        first = tensors[0]
        wide = number_type(first.dtype)
        counts = kept = None
        if factor is not None:
            counts = kept = factor != 0
            if needs_gradient(factor) or plain_only(factor):
                # The slope by a weight of 0 is the loss, where there is one.
                finite = [t.isfinite().reshape(*factor.shape, -1).all(-1) for t in tensors]
                kept = counts | torch.stack(finite).all(0)
        if self.prepares:
            counts = kept
        else:
            tensors = counted(tensors, kept)
        if not shape.numel():
            zero = torch.stack([t.sum() for t in tensors if t.is_floating_point()]).sum().to(wide)
            return zero.expand(shape)
        if checked and self.check_values is not None:
            looked_at = tensors
            if self.prepares and kept is not None:  # not a copy of the first, the largest one
                looked_at = (first, *counted(tensors[1:], kept))
            self.check_values(self.__name__, looked_at, values)
        kind = first.device.type
        narrow = kind != "meta" and torch.is_autocast_enabled(kind)
        # Autocast would take matrix products out of float32.
        with torch.autocast(kind, enabled=False) if narrow else nullcontext():
            losses = self.equation(*tensors, counts, **values).to(wide)
        if factor is None or kept is None:
            return losses
        return torch.where(kept, factor.to(wide) * losses, 0.0)

    def __repr__(self) -> str:
        return f"<loss {self.__name__}>"


def counted(tensors: Tensors, counts: Tensor | None) -> Tensors:
    """Return tensors in the type of the arithmetic, with 0 in what belongs to samples left out.

    It must not reach a formula: 0 * NaN on the way back is NaN.
    """
    wide = number_type(tensors[0].dtype)
    tensors = tuple(t.to(wide) if t.is_floating_point() else t for t in tensors)
    if counts is None:
        return tensors
    return tuple(
        torch.where(counts.reshape(counts.shape + (1,) * (t.ndim - counts.ndim)), t, 0)
        for t in tensors
    )


def sample_loss(
    module: str,
    *,
    check: Callable[[str, Tensors, Values], torch.Size],
    check_values: Callable[[str, Tensors, Values], None] | None = None,
    bounds: Mapping[str, Bound] | None = None,
    prepares: bool = False,
) -> Callable[[Callable[..., Tensor]], SampleLoss]:
    """Make a `SampleLoss` of the function below; see there for the arguments."""
    return lambda equation: SampleLoss(
        module, equation, check, check_values, bounds or {}, prepares
    )
