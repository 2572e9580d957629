"""How a loss file declares its loss: one decorator on the equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ravine.engine.equation import Equation
from ravine.losses.elementwise import ElementwiseLoss

Bound = tuple[Callable[[Any], bool], str]

POSITIVE: Bound = (
    lambda x: isinstance(x, (int, float)) and 0 < x < math.inf,
    "a finite number > 0",
)


def elementwise_loss(
    module: str,
    *,
    domain: Callable[..., Any] | None = None,
    domain_text: str = "",
    bounds: Mapping[str, Bound] | None = None,
    name: str = "",
) -> Callable[[Callable[..., Any]], ElementwiseLoss]:
    """Make an `ElementwiseLoss` of the equation below.

    Args:
        module: the name of the `torch.nn.Module` of the loss.
        domain: ``(target) -> 0.0`` where the loss is defined and ``1.0`` where it is not.
        domain_text: the domain in words, for the error.
        bounds: hyperparameter -> (test, the bound in words).
        name: what messages call the loss; the equation's name if empty.
    """

    def decorate(function: Callable[..., Any]) -> ElementwiseLoss:
        return ElementwiseLoss(
            module,
            Equation(function),
            domain=None if domain is None else Equation(domain),
            domain_text=domain_text,
            bounds=bounds,
            name=name,
        )

    return decorate
