"""Remedies of the optimizer, its rate and the length of the run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from ravine.diagnose.program import Change


@cache
def times_lr(factor: float) -> Change:
    """Return the learning rate times a factor."""
    verb = "raise" if factor > 1 else "lower"
    amount = f"{factor:g}" if factor > 1 else f"1/{1 / factor:g}"
    return Change(f"{verb} the learning rate to {amount} of it", lr=factor)


@cache
def times_epochs(factor: float) -> Change:
    """Return more epochs."""
    return Change(f"train {factor:g} times as long", epochs=factor)


@cache
def batches_of(size: int) -> Change:
    """Return another batch size."""
    return Change(f"take batches of {size} rows", batch_size=size)


@cache
def adam(lr: float = 1e-3) -> Change:
    """Return Adam over all weights in the place of the program's optimizer."""
    return Change(
        f"use Adam with lr {lr:g} over all weights",
        optimizer=lambda weights: torch.optim.Adam([w for w in weights if w.requires_grad], lr=lr),
    )


def rebuilt(
    optimizer: torch.optim.Optimizer, **changes: object
) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Return what makes an optimizer of the same class, over all trainable weights.

    Args:
        optimizer: of the program.
        changes: options that differ.
    """
    base = next(
        (c for c in type(optimizer).__mro__ if c.__module__.startswith(("torch.", "ravine."))),
        type(optimizer),
    )
    known = inspect.signature(base).parameters
    options = {k: v for k, v in {**optimizer.defaults, **changes}.items() if k in known}
    return lambda weights: base([w for w in weights if w.requires_grad], **options)
