"""Losses as `torch.nn.Module`: made of the functions, with the same options."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ravine.errors import unknown_option
from ravine.losses.arguments import check_reduction, is_checked
from ravine.losses.samples import SampleLoss


class LossFunction(Protocol):
    """What a module needs to know of a loss."""

    __name__: str
    module: str
    hyperparameters: dict[str, Any]

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
        """Return the loss."""

    def settle(self, hyperparameters: dict[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, checked against their bounds."""


class LossModule(torch.nn.Module):
    """A loss with its options fixed; called with (input, target), and a weight if there is one.

    Its subclasses are ``MSE``, ``Huber``, ... of `ravine.losses`. ``repr`` is the expression that
    makes it.
    """

    function: ClassVar[Any]

    def __init__(
        self,
        *positional: Any,
        reduction: str = "mean",
        check: str = "on",
        **hyperparameters: Any,
    ) -> None:
        super().__init__()
        function = self.function
        names = list(function.hyperparameters)
        if len(positional) > len(names):
            raise unknown_option(function.module, f"argument {len(names) + 1}", names)
        hyperparameters |= dict(zip(names, positional, strict=False))
        check_reduction(function.__name__, reduction, None)
        is_checked(function.__name__, check)
        function.settle(hyperparameters)
        self.reduction = reduction
        self.check = check
        self.hyperparameters = hyperparameters

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> Tensor:
        """Return the loss; see the function of the same name."""
        result: Tensor = type(self).function(
            input,
            target,
            weight=weight,
            reduction=self.reduction,
            normalizer=normalizer,
            check=self.check,
            **self.hyperparameters,
        )
        return result

    def expression(self) -> str:
        """Return the call that makes this loss."""
        options = [f"{name}={value!r}" for name, value in self.hyperparameters.items()]
        if self.reduction != "mean":
            options.append(f"reduction={self.reduction!r}")
        if self.check != "on":
            options.append(f"check={self.check!r}")
        return f"{type(self).function.__name__}({', '.join(options)})"

    def __repr__(self) -> str:
        return self.expression()


class SampleLossModule(LossModule):
    """A loss of other tensors than (input, target), which come in the order of its function."""

    def forward(  # type: ignore[override]
        self,
        *tensors: Tensor,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
        **named: Tensor,
    ) -> Tensor:
        """Return the loss; see the function of the same name."""
        result: Tensor = type(self).function(
            *tensors,
            weight=weight,
            reduction=self.reduction,
            normalizer=normalizer,
            check=self.check,
            **self.hyperparameters,
            **named,
        )
        return result


def module_class(function: LossFunction | SampleLoss, home: str) -> type[LossModule]:
    """Return the module class of a loss function."""
    namespace = {
        "__doc__": function.__doc__,
        "__module__": home,
        "__qualname__": function.module,
        "function": function,
    }
    of_others = isinstance(function, SampleLoss) or bool(getattr(function, "others", ()))
    base = SampleLossModule if of_others else LossModule
    made = type(function.module, (base,), namespace)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(
                inspect.Parameter(name, kind, default=default)
                for name, default in function.hyperparameters.items()
            ),
            inspect.Parameter("reduction", inspect.Parameter.KEYWORD_ONLY, default="mean"),
            inspect.Parameter("check", inspect.Parameter.KEYWORD_ONLY, default="on"),
        ]
    )
    return made
