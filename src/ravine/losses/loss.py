"""How a loss file declares its loss: one decorator on the equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ravine.engine.equation import Equation
from ravine.losses.bounds import Bound
from ravine.losses.elementwise import ElementwiseLoss


def elementwise_loss(
    module: str,
    *,
    domain: Callable[..., Any] | None = None,
    domain_text: str = "",
    domains: Mapping[str, tuple[Callable[..., Any], str]] | None = None,
    wide: bool = False,
    curvature: bool = False,
    bounds: Mapping[str, Bound] | None = None,
    name: str = "",
) -> Callable[[Callable[..., Any]], ElementwiseLoss]:
    """Make an `ElementwiseLoss` of the equation below.

    Args:
        module: the name of the `torch.nn.Module` of the loss.
        domain: ``(target) -> 0.0`` where the loss is defined and ``1.0`` where it is not.
        domain_text: the domain in words, for the error.
        domains: the same of the equation's further tensors: name -> (domain, words).
        wide: computed in float64 whatever the input's type, for equations whose terms cancel.
        curvature: whether the equation's last output is the second derivative by the input.
        bounds: hyperparameter -> (test, the bound in words).
        name: what messages call the loss; the equation's name if empty.
    """

    checked = {} if domain is None else {"target": (domain, domain_text)}
    checked |= domains or {}

    def decorate(function: Callable[..., Any]) -> ElementwiseLoss:
        return ElementwiseLoss(
            module,
            Equation(function),
            domains={part: (Equation(test), text) for part, (test, text) in checked.items()},
            wide=wide,
            curvature=curvature,
            bounds=bounds,
            name=name,
        )

    return decorate
