# mypy: disable-error-code="no-untyped-call"
"""Losses of one input and one target at a time: from their equation to value and gradient.

An equation returns the loss and its slope (derivative by the input). On the CPU both come from one
pass over the data, with the sum in float64; elsewhere, and where a derivative of the derivative or a
transform of functions is asked for, the same equation runs on whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.engine.equation import Equation
from ravine.errors import ArgumentError, TargetError, unknown_option
from ravine.losses.arguments import (
    check_input,
    check_not_empty,
    check_reduction,
    check_same_shape,
    check_weight,
    plain_only,
)
from ravine.losses.fused import FusedLoss, weigh

class ElementwiseLoss:
    """A loss made of a scalar equation ``(input, target, *, hyperparameters) -> (loss, slope)``.

    Args:
        module: the name of its `torch.nn.Module`.
        equation: the formula.
        domain: ``(target) -> 0.0`` where the loss is defined, ``1.0`` where it is not; None if it is
            for any number.
        domain_text: the domain in words.
        bounds: hyperparameter -> (test, the bound in words).
    """

    def __init__(
        self,
        module: str,
        equation: Equation,
        *,
        domain: Equation | None = None,
        domain_text: str = "",
        bounds: Mapping[str, tuple[Callable[[Any], bool], str]] | None = None,
    ) -> None:
        self.module = module
        self.equation = equation
        self.__name__ = equation.name
        self.__doc__ = equation.doc
        self.domain = domain
        self.domain_text = domain_text
        self.bounds = bounds or {}
        self.hyperparameters = equation.hyperparameters

    def __call__(
        self,
        input: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: float | Tensor | None = None,
        **hyperparameters: Any,
    ) -> Tensor:
        name = self.equation.name
        values = self.settle(hyperparameters)
        check_reduction(name, reduction, normalizer)
        check_input(name, input)
        check_same_shape(name, input, target)
        check_not_empty(name, input.numel(), reduction, normalizer)
        if weight is not None:
            weight = check_weight(name, weight, input.shape)
        scale = 1.0
        if reduction == "mean":
            scale = _mean_scale(input, weight, normalizer)
        plain = (
            plain_only(input, target, weight)
            or target.requires_grad
            or (weight is not None and weight.requires_grad)
        )
        if plain:
            return self._plain(input, target, weight, values, reduction, scale)
        applied: Tensor = FusedLoss.apply(input, self, target, weight, values, reduction, scale)
        return applied

    def settle(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, checked against their bounds."""
        for option in hyperparameters:
            if option not in self.hyperparameters:
                known = [*self.hyperparameters, "weight", "reduction", "normalizer"]
                raise unknown_option(self.equation.name, option, known)
        values = {**self.hyperparameters, **hyperparameters}
        for option, (test, text) in self.bounds.items():
            if not test(values[option]):
                raise ArgumentError(
                    f"{self.equation.name}: {option} has a value that cannot be used",
                    got=repr(values[option]),
                    expected=text,
                )
        return values

    def elements(
        self, input: Tensor, target: Tensor, weight: Tensor | None, values: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return loss and slope of every element by plain PyTorch operations."""
        if input.dtype in (torch.float16, torch.bfloat16):
            input = input.float()
        loss, slope = self.equation.reference(input, target.to(input.dtype), **values)
        if weight is None:
            return loss, slope
        weighted: tuple[Tensor, Tensor] = weigh(loss, slope, weight.to(loss.dtype))
        return weighted

    def _plain(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        values: Mapping[str, Any],
        reduction: str,
        scale: float,
    ) -> Tensor:
        if not torch.compiler.is_compiling() and self.domain is not None:
            self.check_domain(target)
        loss, _ = self.elements(input, target, weight, values)
        return loss if reduction == "none" else loss.sum() * scale

    def check_domain(self, target: Tensor) -> None:
        """Raise `TargetError` for the first target outside of the domain."""
        if self.domain is None or plain_only(target):
            return
        outside = self.domain.reference(target.detach().to(torch.float64))
        if bool(outside.any()):
            position = outside.nonzero()[0].tolist()
            raise TargetError(
                f"{self.equation.name}: a target is outside of what the loss is defined for",
                where=f"target[{', '.join(map(str, position))}]",
                got=repr(target.detach()[tuple(position)].item()),
                expected=self.domain_text,
            )


def _mean_scale(input: Tensor, weight: Tensor | None, normalizer: Any) -> float:
    """Return what the sum of the (weighted) losses is multiplied by."""
    if normalizer is not None:
        return 1.0 / float(normalizer)
    if weight is None:
        return 1.0 / input.numel()
    total = float(weight.detach().sum(dtype=torch.float64))
    return 1.0 / total if total > 0 else 0.0
