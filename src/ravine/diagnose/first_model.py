"""A model that cannot be made anew, put back to how it came after each replay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FirstModel:
    """What a model consisted of when it was handed over: modules, hooks, options and weights.

    Remedies put layers in, make them wider, hook and freeze them; a person's own object must not
    keep any of it. Nothing is copied but the values: the objects stay the person's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._modules = [(module, _shallow(module.__dict__)) for module in model.modules()]
        self._weights = [
            (weight, weight.detach().clone(), weight.requires_grad, _shallow(weight.__dict__))
            for weight in (*model.parameters(), *model.buffers())
        ]
        self._hooks = [_copied(weight._backward_hooks) for weight, *_ in self._weights]

    def put_back(self) -> nn.Module:
        """Return the model as it came, without gradients."""
        for module, held in self._modules:
            module.__dict__.clear()
            module.__dict__.update(_shallow(held))
        for (weight, value, requires_grad, held), hooks in zip(
            self._weights, self._hooks, strict=True
        ):
            weight.requires_grad_(requires_grad)
            weight.grad = None
            weight._backward_hooks = _copied(hooks)
            weight.__dict__.clear()
            weight.__dict__.update(held)
            _fill(weight, value)
        return self.model


@torch.no_grad()
def _fill(weight: Tensor, value: Tensor) -> None:
    if weight.dtype == value.dtype and weight.device == value.device:
        weight.copy_(value)
    else:
        weight.data = value.clone()


def _shallow(held: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes with the containers of modules, weights and hooks copied."""
    return {name: _copied(value) for name, value in held.items()}


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, set)) else value
