# mypy: disable-error-code="no-untyped-call"
"""Losses of one input and one target at a time: from their equation to value and gradient.

An equation returns the loss and its slope (derivative by the input). One with further tensors (a
variance) returns a slope by each of them too; one that declares it returns its curvature last. On the
CPU and on a GPU all come from one pass over the data, summed in float64; elsewhere, and for derivatives
of derivatives and transforms of functions, the same equation runs on whole tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.engine.equation import Equation
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    EquationError,
    taken_name,
)
from ravine.losses.arguments import (
    check_input,
    check_not_empty,
    check_reduction,
    check_same_shape,
    check_weight,
    is_at_hand,
    is_checked,
    needs_gradient,
    plain_only,
    refuse_capture,
)
from ravine.losses.bounds import TAKEN, Bound, settled
from ravine.losses.formula import Formula
from ravine.losses.fused import FusedLoss
from ravine.losses.one_pass import Call, curvature_alone, value_and_gradient
from ravine.losses.reduction import divisor_of, reciprocal, reduced, weights_sum

# The applying itself: functorch, which Function.apply looks for first, is not at work (`plain_only`).
_apply = super(torch.autograd.Function, FusedLoss).apply


class ElementwiseLoss(Formula):
    """A loss made of a scalar equation.

    ``(input, target, further tensors, *, hyperparameters) -> (loss, slope by the input, slope by each
    further tensor, second derivative by the input where ``curvature`` says so)``

    Args:
        module: the name of its `torch.nn.Module`.
        domains: "target" or the name of a further tensor -> (equation, words); the equation is
            ``(tensor, *, hyperparameters) -> 0.0`` where the loss is defined, ``1.0`` where not.
        wide: computed in float64 whatever the input's type, because terms cancel.
        curvature: whether the equation returns the second derivative by the input too.
        bounds: hyperparameter -> (test, the bound in words).
        name: what messages call it; the equation's name if empty.
    """

    def __init__(
        self,
        module: str,
        equation: Equation,
        *,
        name: str = "",
        domains: Mapping[str, tuple[Equation, str]] | None = None,
        wide: bool = False,
        curvature: bool = False,
        bounds: Mapping[str, Bound] | None = None,
    ) -> None:
        if equation.reduces:
            raise EquationError(
                f"loss {equation.name!r} asks for a number that comes from all elements",
                expected="a loss of one element at a time",
                do="compute the number before, and give it as a hyperparameter",
            )
        for own in (*equation.tensors[2:], *equation.hyperparameters):
            if own in TAKEN:
                raise taken_name(f"loss {equation.name!r}", own, TAKEN)
        super().__init__(
            name or equation.name, equation, domains or {}, wide=wide, curvature=curvature
        )
        self.module = module
        self.__doc__ = equation.doc
        self.bounds = bounds or {}
        self.hyperparameters = equation.hyperparameters
        # The same loss for check="off": no domain is no test of targets in any kernel.
        self._unchecked = copy.copy(self)
        self._unchecked.domains = {}

    def __call__(
        self,
        input: Tensor,
        target: Tensor,
        *others: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: float | Tensor | None = None,
        check: str = "on",
        **hyperparameters: Any,
    ) -> Tensor:
        name = self.__name__
        checked = is_checked(name, check)
        if not checked and self.domains:
            return self._unchecked(
                input, target, *others, weight=weight, reduction=reduction, normalizer=normalizer,
                check=check, **hyperparameters,
            )  # fmt: skip
        if others or self.others:
            others = self._named(others, hyperparameters)
        values = self.settle(hyperparameters) if hyperparameters else self.hyperparameters
        if checked and self._looks(weight, normalizer):
            refuse_capture(name, input)
        check_reduction(name, reduction, normalizer, checked)
        self._check_tensors(input, target, others)
        check_not_empty(name, input.numel(), reduction, normalizer)
        if weight is not None:
            weight = check_weight(name, weight, input.shape, input, checked)
        if plain_only(input, target, weight, *others) or needs_gradient(target, weight, normalizer):
            return self._plain(input, target, others, weight, values, reduction, normalizer)
        scale = _mean_scale(input, weight, normalizer) if reduction == "mean" else 1.0
        call = Call(self, target, weight, values, reduction, scale)
        if not (needs_gradient(input, *others) and torch.is_grad_enabled()):
            nothing = (False,) * (1 + len(others))
            found, _ = value_and_gradient(call, (input, *others), nothing)
            return found
        applied: Tensor = _apply(call, input, *others)
        return applied

    def curvature(
        self,
        input: Tensor,
        target: Tensor,
        *others: Tensor,
        weight: Tensor | None = None,
        **hyperparameters: Any,
    ) -> Tensor:
        """Return the second derivative of each (weighted) element by its input, as Newton needs it.

        Raises:
            ArgumentError: the equation does not return its curvature.
        """
        name = self.__name__
        if not self.has_curvature:
            raise ArgumentError(
                f"{name}: its equation returns no curvature",
                do="differentiate twice: torch.autograd.grad(..., create_graph=True)",
            )
        others = self._named(others, hyperparameters)
        values = self.settle(hyperparameters)
        self._check_tensors(input, target, others)
        weight = None if weight is None else check_weight(name, weight, input.shape, input)
        if not plain_only(input, target, weight, *others) and not needs_gradient(
            input, target, weight, *others
        ):
            return curvature_alone(Call(self, target, weight, values), (input, *others))
        inputs = input, *others
        self.check_domain(inputs, target, weight, values)
        return self.elements(inputs, target, weight, values)[-1]

    def _looks(self, weight: Tensor | None, normalizer: float | Tensor | None) -> bool:
        """Whether there is a value for the host to check."""
        return bool(self.domains) or weight is not None or isinstance(normalizer, Tensor)

    def _named(self, given: tuple[Tensor, ...], options: dict[str, Any]) -> tuple[Tensor, ...]:
        """Return the further tensors, given by position or taken out of the options."""
        rest = self.others[len(given) :]
        missing = [name for name in rest if name not in options]
        if missing or len(given) > len(self.others):
            self.settle({k: v for k, v in options.items() if k not in self.others})
            wanted = ("input", "target", *self.others)
            raise ArgumentTypeError(
                f"{self.__name__}: the tensors are not the ones that it takes",
                got=f"{2 + len(given) + len(rest) - len(missing)}",
                expected=f"{len(wanted)}: {', '.join(wanted)}",
            )
        return (*given, *(options.pop(name) for name in rest))

    def _check_tensors(self, input: Tensor, target: Tensor, others: tuple[Tensor, ...]) -> None:
        check_input(self.__name__, input)
        check_same_shape(self.__name__, input, target)
        for name, other in zip(self.others, others, strict=True):
            check_same_shape(self.__name__, input, other, name)

    def settle(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, checked against their bounds."""
        return settled(
            self.__name__, hyperparameters, self.hyperparameters, self.bounds, self.others
        )

    def _plain(
        self,
        input: Tensor,
        target: Tensor,
        others: tuple[Tensor, ...],
        weight: Tensor | None,
        values: Mapping[str, Any],
        reduction: str,
        normalizer: float | Tensor | None,
    ) -> Tensor:
        inputs = (input, *others)
        self.check_domain(inputs, target, weight, values)
        losses = self.elements(inputs, target, weight, values)[0]
        return reduced(losses, reduction, normalizer, lambda: weights_sum(weight, losses))


def _mean_scale(input: Tensor, weight: Tensor | None, normalizer: Any) -> float | Tensor:
    """Return what the sum of the (weighted) losses is multiplied by; on their device, if it is there."""
    if normalizer is not None:
        return 1.0 / divisor_of(normalizer, input)
    if weight is None:
        return 1.0 / input.numel()
    total = weight.detach().sum(dtype=torch.float64)
    return reciprocal(float(total) if is_at_hand(total) else total)
