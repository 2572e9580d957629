"""Remedies of the model, made in place before the optimizer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import nn

from ravine.diagnose.program import Change

SQUASHING = (
    nn.Sigmoid,
    nn.Tanh,
    nn.Softmax,
    nn.LogSoftmax,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Softsign,
)
ACTIVATIONS = (*SQUASHING, nn.ReLU, nn.ReLU6, nn.Softplus)


def last_leaf(model: nn.Module) -> tuple[nn.Module, str, nn.Module] | None:
    """Return the last module without children, as (parent, key, module)."""
    leaves = [one for one in _children(model) if not list(one[2].children())]
    return leaves[-1] if leaves else None


def last_weighted(model: nn.Module) -> tuple[nn.Module, str, nn.Module] | None:
    """Return the last module with weights of its own, as (parent, key, module)."""
    own = [one for one in _children(model) if any(True for _ in one[2].parameters(recurse=False))]
    return own[-1] if own else None


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield all modules inside as (parent, key, module), in the order of their definition."""
    for key, child in model._modules.items():
        if child is not None:
            yield model, key, child
            yield from _children(child)


def _head(make: Callable[[], nn.Module]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        found = last_leaf(model)
        if found is None:
            return
        parent, key, child = found
        new = make()
        if isinstance(child, ACTIVATIONS):
            parent._modules[key] = new
        else:
            parent._modules[key] = nn.Sequential(child, new)

    return change


LINEAR_HEAD = Change("take the activation off the output", model=_head(nn.Identity))
SIGMOID_HEAD = Change("put a sigmoid on the output", model=_head(nn.Sigmoid))


def _unfreeze(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.requires_grad_(True)


def _without_hooks(model: nn.Module) -> None:
    for weight in model.parameters():
        weight._backward_hooks = None


def _register(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, held in list(vars(module).items()):
            values = list(held.values()) if isinstance(held, dict) else held
            if name.startswith("_") and name[1:] in ("modules", "parameters", "buffers"):
                continue
            if not isinstance(values, (list, tuple)) or not values:
                continue
            if all(isinstance(value, nn.Module) for value in values):
                delattr(module, name)
                kept = nn.ModuleDict(held) if isinstance(held, dict) else nn.ModuleList(values)
                setattr(module, name, kept)


REGISTER = Change("hold the layers in an nn.ModuleList or nn.ModuleDict", model=_register)
WITHOUT_HOOKS = Change("take the hooks off the gradients", model=_without_hooks)
UNFREEZE = Change("train all weights", model=_unfreeze)


@torch.no_grad()
def _he(model: nn.Module) -> None:
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            assert isinstance(weight, torch.Tensor)
            nn.init.kaiming_uniform_(weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


HE = Change("initialise the weights anew (He)", model=_he)


@cache
def _relu_and_he() -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        last = last_leaf(model)
        for parent in list(model.modules()):
            for key, child in parent._modules.items():
                if isinstance(child, (nn.Sigmoid, nn.Tanh)) and (
                    last is None or child is not last[2]
                ):
                    parent._modules[key] = nn.ReLU()
        _he(model)

    return change


RELU_AND_HE = Change("use ReLU and initialise anew (He)", model=_relu_and_he())


def _leaky(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if isinstance(child, nn.ReLU):
                parent._modules[key] = nn.LeakyReLU(0.1)


LEAKY = Change("use leaky ReLU", model=_leaky)
