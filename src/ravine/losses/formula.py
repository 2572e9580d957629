"""What an elementwise loss says of each element: its equation, and where that is defined."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.engine.equation import Equation
from ravine.losses.arguments import check_elements, readable


class Formula:
    """An equation with what has to be known to run it.

    Args:
        name: what messages call it.
        equation: ``(input, target, further tensors, *, hyperparameters)``; returns loss, slope by the
            input, slopes by the further tensors and, with ``curvature``, the second derivative.
        domains: "target" or the name of a further tensor -> (equation that is 0.0 where the loss is
            defined, words).
        wide: computed in float64 whatever the input's type.
        curvature: whether the equation returns the second derivative by the input too.
    """

    def __init__(
        self,
        name: str,
        equation: Equation,
        domains: Mapping[str, tuple[Equation, str]],
        *,
        wide: bool,
        curvature: bool,
    ) -> None:
        self.__name__ = name
        self.equation = equation
        self.others = equation.tensors[2:]
        self.domains = domains
        self.wide = wide
        self.has_curvature = curvature
        self._reference = _nameless(equation.reference)

    def elements(
        self,
        inputs: tuple[Tensor, ...],
        target: Tensor,
        weight: Tensor | None,
        values: Mapping[str, Any],
    ) -> tuple[Tensor, ...]:
        """Return loss, slopes and curvature of every element by plain PyTorch operations."""
        result = torch.float64 if inputs[0].dtype is torch.float64 else torch.float32
        kind = torch.float64 if self.wide else result
        given = [tensor.to(kind) for tensor in (inputs[0], target, *inputs[1:])]
        if weight is None:
            return tuple(part.to(result) for part in self._reference(*given, **values))
        # What is left out must not reach the formula if it is not finite: 0 * NaN on the way back is
        # NaN. Finite samples of weight 0 do: the slope by their weight is their loss.
        counts = weight != 0
        finite = given[0].isfinite()
        for tensor in given[1:]:
            finite = finite & tensor.isfinite()
        kept = counts | finite
        parts = self._reference(*(torch.where(kept, tensor, 0.0) for tensor in given), **values)
        kept = counts | (kept & parts[0].isfinite())
        weight = weight.to(kind)
        return tuple(torch.where(kept, weight * part, 0.0).to(result) for part in parts)

    def check_domain(
        self,
        inputs: tuple[Tensor, ...],
        target: Tensor,
        weight: Tensor | None,
        values: Mapping[str, Any],
    ) -> None:
        """Raise `TargetError` for the first element outside of its domain, if its sample counts."""
        tensors = {"target": target, **dict(zip(self.others, inputs[1:], strict=True))}
        for name, (domain, text) in self.domains.items():
            tensor = tensors[name].detach()
            if not readable(tensor):
                continue
            numbers = {option: values[option] for option in domain.hyperparameters}
            outside = domain.reference(tensor.to(torch.float64), **numbers)
            if weight is not None:
                outside = torch.where(weight.detach() == 0, 0.0, outside)
            check_elements(self.__name__, name, tensor, outside, text)


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
