"""Remedies of the optimizer, its rate and the length of the run."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from ravine.diagnose.program import Change
from ravine.tasks import Task
from ravine.training.catalog import OptimizerChoice


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


def is_ours(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer is one of Ravine's."""
    return any(c.__module__.startswith("ravine.") for c in type(optimizer).__mro__)


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
    if is_ours(optimizer):
        return OptimizerChoice(base, **options)  # made as a run makes it: no decay of biases
    return lambda weights: base([w for w in weights if w.requires_grad], **options)


def clipped(optimizer: torch.optim.Optimizer, norm: float = 1.0) -> Change:
    """Return the same optimizer with the norm of all gradients clipped before each step."""
    make = rebuilt(optimizer, clip_norm=norm)

    def made(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        new = make(weights)

        def clip(optimizer: torch.optim.Optimizer, args: Any, options: Any) -> None:
            nn.utils.clip_grad_norm_(weights, norm)

        new.register_step_pre_hook(clip)
        return new

    return Change(
        f"clip the norm of the gradients at {norm:g}",
        optimizer=make if is_ours(optimizer) else made,
        written=(("optimizer.clip_norm", f"{norm:g}"),),
    )


@cache
def decayed(steps: int) -> Change:
    """Return a learning rate that falls to 1/100 in the second half of so many steps."""

    def factor(step: int) -> float:
        return float(0.01 ** max(0.0, 2 * step / steps - 1))

    def change(task: Task) -> Task:
        if task.scheduler is not None:
            return task
        return dataclasses.replace(
            task,
            scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
            scheduler_interval="step",
        )

    half, rate = max(1, steps // 2), 2 * math.log(100) / steps
    falling = f"constant({{lr}}, {half}) >> exponential({{lr}}, {rate:.6g})"
    return Change(
        "lower the learning rate to 1/100 over the second half",
        task=change,
        written=(("optimizer.lr", falling),),
    )


def with_momentum(optimizer: torch.optim.Optimizer) -> Change:
    """Return the same optimizer with momentum 0.9, or with Adam's where it has none."""
    if "momentum" not in optimizer.defaults:
        return adam(0.01)
    return Change("use momentum 0.9", optimizer=rebuilt(optimizer, momentum=0.9))
