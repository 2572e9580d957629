# mypy: disable-error-code="no-untyped-call"
"""Losses of one input and one target at a time: from their equation to value and gradient.

An equation returns the loss and its slope (derivative by the input). On the CPU both come from one
pass over the data, with the sum in float64; elsewhere, and where a derivative of the derivative or a
transform of functions is asked for, the same equation runs on whole tensors.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.engine.equation import Equation
from ravine.errors import ArgumentError, EquationError, TargetError, unknown_option
from ravine.losses.arguments import (
    check_input,
    check_not_empty,
    check_reduction,
    check_same_shape,
    check_weight,
    is_checked,
    needs_gradient,
    plain_only,
    readable,
)
from ravine.losses.fused import FusedLoss, value_and_gradient

# The applying itself: functorch, which Function.apply looks for first, is not at work (`plain_only`).
_apply = super(torch.autograd.Function, FusedLoss).apply


class ElementwiseLoss:
    """A loss made of a scalar equation ``(input, target, *, hyperparameters) -> (loss, slope)``.

    Args:
        module: the name of its `torch.nn.Module`.
        equation: the formula.
        domain: ``(target) -> 0.0`` where the loss is defined, ``1.0`` where it is not; None if it is
            for any number.
        domain_text: the domain in words.
        bounds: hyperparameter -> (test, the bound in words).
        name: what messages call it; the equation's name if empty.
    """

    def __init__(
        self,
        module: str,
        equation: Equation,
        *,
        name: str = "",
        domain: Equation | None = None,
        domain_text: str = "",
        bounds: Mapping[str, tuple[Callable[[Any], bool], str]] | None = None,
    ) -> None:
        if equation.reduces:
            raise EquationError(
                f"loss {equation.name!r} asks for a number that comes from all elements",
                expected="a loss of one element at a time",
                do="compute the number before, and give it as a hyperparameter",
            )
        self.module = module
        self.equation = equation
        self.__name__ = name or equation.name
        self.__doc__ = equation.doc
        self.domain = domain
        self.domain_text = domain_text
        self.bounds = bounds or {}
        self.hyperparameters = equation.hyperparameters
        self._reference = _nameless(equation.reference)
        # The same loss for check="off": no domain is no test of targets in any kernel.
        self._unchecked = copy.copy(self)
        self._unchecked.domain = None

    def __call__(
        self,
        input: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: float | Tensor | None = None,
        check: str = "on",
        **hyperparameters: Any,
    ) -> Tensor:
        name = self.__name__
        checked = is_checked(name, check)
        if not checked and self.domain is not None:
            return self._unchecked(
                input, target, weight=weight, reduction=reduction, normalizer=normalizer,
                check=check, **hyperparameters,
            )  # fmt: skip
        values = self.settle(hyperparameters) if hyperparameters else self.hyperparameters
        check_reduction(name, reduction, normalizer)
        check_input(name, input)
        check_same_shape(name, input, target)
        check_not_empty(name, input.numel(), reduction, normalizer)
        if weight is not None:
            weight = check_weight(name, weight, input.shape, input, checked)
        if plain_only(input, target, weight) or needs_gradient(target, weight, normalizer):
            return self._plain(input, target, weight, values, reduction, normalizer)
        scale = _mean_scale(input, weight, normalizer) if reduction == "mean" else 1.0
        if not (input.requires_grad and torch.is_grad_enabled()):
            found, _ = value_and_gradient(
                self, input, target, weight, values, reduction, scale, False
            )
            return found
        rest = self, target, weight, values, reduction, scale
        applied: Tensor = _apply(input, rest)
        return applied

    def settle(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, checked against their bounds."""
        for option in hyperparameters:
            if option not in self.hyperparameters:
                known = [*self.hyperparameters, "weight", "reduction", "normalizer", "check"]
                raise unknown_option(self.__name__, option, known)
        values = {**self.hyperparameters, **hyperparameters}
        for option, (test, text) in self.bounds.items():
            if not test(values[option]):
                raise ArgumentError(
                    f"{self.__name__}: {option} has a value that cannot be used",
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
        target = target.to(input.dtype)
        if weight is None:
            return self._reference(input, target, **values)  # type: ignore[no-any-return]
        # What is left out must not reach the formula if it is not finite: 0 * NaN on the way back is
        # NaN. Finite samples of weight 0 do: the slope by their weight is their loss.
        counts = weight != 0
        kept = counts | (input.isfinite() & target.isfinite())
        input, target = torch.where(kept, input, 0.0), torch.where(kept, target, 0.0)
        loss, slope = self._reference(input, target, **values)
        kept = counts | (kept & loss.isfinite())
        weight = weight.to(loss.dtype)
        return torch.where(kept, weight * loss, 0.0), torch.where(kept, weight * slope, 0.0)

    def _plain(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        values: Mapping[str, Any],
        reduction: str,
        normalizer: float | Tensor | None,
    ) -> Tensor:
        self.check_domain(target, weight)
        loss, _ = self.elements(input, target, weight, values)
        if reduction == "none":
            return loss
        total = loss.sum()
        if reduction == "sum":
            return total
        if normalizer is not None:
            return total / normalizer
        if weight is None:
            return total / input.numel()
        amount = weight.sum(dtype=loss.dtype)
        return torch.where(amount == 0, 0.0, total / torch.where(amount == 0, 1.0, amount))

    def check_domain(self, target: Tensor, weight: Tensor | None) -> None:
        """Raise `TargetError` for the first target outside of the domain, if its sample counts."""
        if self.domain is None or not readable(target):
            return
        outside = self.domain.reference(target.detach().to(torch.float64))
        if weight is not None:
            outside = torch.where(weight.detach() == 0, 0.0, outside)
        if bool(outside.any()):
            position = outside.nonzero()[0].tolist()
            raise TargetError(
                f"{self.__name__}: a target is outside of what the loss is defined for",
                where=f"target[{', '.join(map(str, position))}]",
                got=repr(target.detach()[tuple(position)].item()),
                expected=self.domain_text,
            )


def _nameless(function: Any) -> Callable[..., Any]:
    """Return a function whose globals do not say that they are a module's.

    torch.compile would look for them there, and the names that the engine has bound are not.
    """
    scope = {name: value for name, value in function.__globals__.items() if name != "__name__"}
    made = types.FunctionType(
        function.__code__, scope, function.__name__, None, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _mean_scale(input: Tensor, weight: Tensor | None, normalizer: Any) -> float:
    """Return what the sum of the (weighted) losses is multiplied by."""
    if normalizer is not None:
        return 1.0 / float(normalizer)
    if weight is None:
        return 1.0 / input.numel()
    total = float(weight.detach().sum(dtype=torch.float64))
    return 1.0 / total if total != 0 else 0.0
