"""Losses as `torch.nn.Module`: made of the functions, with the same options."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ravine.errors import unknown_option
from ravine.losses.arguments import check_reduction


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

    def __init__(self, *positional: Any, reduction: str = "mean", **hyperparameters: Any) -> None:
        super().__init__()
        function = self.function
        names = list(function.hyperparameters)
        if len(positional) > len(names):
            raise unknown_option(function.module, f"argument {len(names) + 1}", names)
        hyperparameters |= dict(zip(names, positional, strict=False))
        check_reduction(function.__name__, reduction, None)
        function.settle(hyperparameters)
        self.reduction = reduction
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
            **self.hyperparameters,
        )
        return result

    def expression(self) -> str:
        """Return the call that makes this loss."""
        options = [f"{name}={value!r}" for name, value in self.hyperparameters.items()]
        if self.reduction != "mean":
            options.append(f"reduction={self.reduction!r}")
        return f"{type(self).function.__name__}({', '.join(options)})"

    def __repr__(self) -> str:
        return self.expression()


class TensorsLossModule(LossModule):
    """The module of a loss that takes further tensors after the target."""

    def forward(  # type: ignore[override]
        self, input: Tensor, target: Tensor, *tensors: Tensor, **named: Any
    ) -> Tensor:
        """Return the loss; see the function of the same name."""
        named = {"reduction": self.reduction, **self.hyperparameters, **named}
        result: Tensor = type(self).function(input, target, *tensors, **named)
        return result


def module_class(function: LossFunction, home: str) -> type[LossModule]:
    """Return the module class of a loss function."""
    namespace = {
        "__doc__": function.__doc__,
        "__module__": home,
        "__qualname__": function.module,
        "function": function,
    }
    base = TensorsLossModule if getattr(function, "others", ()) else LossModule
    made = type(function.module, (base,), namespace)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(
                inspect.Parameter(name, kind, default=default)
                for name, default in function.hyperparameters.items()
            ),
            inspect.Parameter("reduction", inspect.Parameter.KEYWORD_ONLY, default="mean"),
        ]
    )
    return made
