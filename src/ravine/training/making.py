"""The optimizer of a run, made for the weights of its model."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from ravine.errors import ArgumentTypeError, TaskError
from ravine.regularize import decay_groups
from ravine.training.catalog import Maker, OptimizerChoice

DECAYING = ("weight_decay", "l1", "l2")


def make_optimizer(maker: Maker, model: nn.Module) -> tuple[torch.optim.Optimizer, list[str]]:
    """Return the optimizer of a model, and what is to be said about its groups."""
    weights = list(model.parameters())
    if not any(weight.requires_grad for weight in weights):
        raise TaskError(
            "the model has no weights to train",
            got=f"{type(model).__name__}: {len(weights)} parameters, all frozen"
            if weights
            else f"{type(model).__name__} without parameters",
        )
    if not isinstance(maker, OptimizerChoice):
        optimizer = maker(weights)
        _check_foreign(optimizer, weights)
        return optimizer, []
    asked = {**maker.func.options, **maker.keywords}  # type: ignore[attr-defined]
    used = {name: asked[name] for name in DECAYING if asked[name]}
    if not used:
        return maker(weights), []
    groups = decay_groups(model, **used)
    sizes = [
        sum(p.numel() for group in groups if bool(group[name]) is acts for p in group["params"])
        for name in list(used)[:1]
        for acts in (True, False)
    ]
    if not sizes[1]:
        return maker(groups), []
    note = f"{', '.join(used)} on {sizes[0]} weights; {sizes[1]} biases and norm weights left out"
    return maker(groups), [note]


def _check_foreign(optimizer: object, weights: list[nn.Parameter]) -> None:
    """Refuse what a caller's function returned, if it cannot train these weights."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentTypeError(
            "the function did not return an optimizer",
            got=type(optimizer).__name__,
            expected="a torch.optim.Optimizer",
            do="write lambda params: torch.optim.Adam(params, lr=1e-3)",
        )
    known = {id(weight) for weight in weights}
    held = [weight for group in optimizer.param_groups for weight in group["params"]]
    if any(id(weight) not in known for weight in held):
        raise ArgumentTypeError(
            "the optimizer holds other weights than the run's",
            got="weights that the function was not called with",
            expected="those it is called with: a copy of the task's model is trained",
            do="write lambda params: torch.optim.Adam(params, lr=1e-3)",
        )
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ArgumentTypeError(
            "the optimizer evaluates the loss itself, which training does not offer",
            got=type(optimizer).__name__,
            expected="an optimizer whose step() takes no closure",
        )
