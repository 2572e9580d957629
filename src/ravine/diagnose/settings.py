"""What a change is in the words of a configuration: the arguments of `ravine.train`.

The optimizer is read off the program that was made with the change, so that a configuration says
what was replayed, not what a remedy was meant to be.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Change
from ravine.diagnose.treatments.loss import and_also
from ravine.errors import RavineError
from ravine.schedules.base import Schedule
from ravine.tasks import Task
from ravine.training.catalog import (
    OPTIMIZERS,
    choose_optimizer,
    choose_regularizers,
    expression_name,
    merged,
)
from ravine.training.config.expressions import name_of

__all__ = ["as_settings", "configured", "optimizer_text"]

_HOW = frozenset({"params", "foreach", "fused", "capturable", "differentiable", "initial_lr"})
"""What of a group says how a step is computed, or is no option."""

_OURS = frozenset({"schedule", "schedule_step", "backend"})


def configured(task: Task, settings: Mapping[str, Any]) -> Task:
    """Return a task with the choices of a configuration in it, as `ravine.train` takes them."""
    rest = dict(settings)
    if "loss" in rest:
        task = task.with_loss(rest.pop("loss"))
    return dataclasses.replace(task, **rest)


def as_settings(evidence: Evidence, change: Change) -> tuple[dict[str, Any], Change | None]:
    """Return what of a change a configuration can say, and what it cannot, as a change.

    Args:
        evidence: makes the program with the change.
        change: a remedy.

    Returns:
        arguments of `ravine.train` by name, and the rest of the change; None if nothing is left.
    """
    settings: dict[str, Any] = {}
    left: Change | None = None
    for part in change.parts or (change,):
        said, rest = _part(evidence, part, settings)
        settings |= said
        if rest is not None:
            left = rest if left is None else and_also(left, rest)
    return settings, left


def _part(
    evidence: Evidence, change: Change, before: Mapping[str, Any]
) -> tuple[dict[str, Any], Change | None]:
    said: dict[str, Any] = {}
    own = [key for key, _ in change.written]
    if change.best:  # as patient as the run is long: the epoch that the replay ended with
        epochs = evidence.fresh().epochs
        more = f"early_stopping(patience={epochs})"
        said["regularize"] = _regularize(evidence, before.get("regularize"), more)
    if change.epochs != 1:
        said["epochs"] = evidence.fresh(Change(epochs=change.epochs)).epochs
    if change.batch_size is not None:
        said["batch_size"] = change.batch_size
    rest = dataclasses.replace(
        change, best=False, epochs=1.0, batch_size=None, written=(), parts=()
    )
    if change.lr != 1 or change.optimizer or change.groups or _about("optimizer", own):
        text = _optimizer(evidence, change)
        if text is not None:
            said["optimizer"] = text
            rest = dataclasses.replace(rest, lr=1.0, optimizer=None, groups=None)
            rest = dataclasses.replace(rest, task=None) if "optimizer.lr" in own else rest
    for key, value in change.written:
        if key == "loss":
            said[key] = value
            rest = dataclasses.replace(rest, task=None)
        elif key == "regularize":
            said[key] = _regularize(evidence, said.get(key, before.get(key)), value)
            rest = dataclasses.replace(rest, task=None, model=None)
    nothing = dataclasses.replace(rest, says=Change().says) == Change()
    return said, None if nothing else rest


def _about(name: str, keys: list[str]) -> bool:
    return any(key.partition(".")[0] == name for key in keys)


def _regularize(evidence: Evidence, so_far: list[str] | None, more: str) -> list[str]:
    if more == "none":
        return []
    if so_far is None:
        task = evidence.fresh().task
        so_far = [repr(one) for one in choose_regularizers(task.regularize or ())]
    new = name_of("regularize", more, "")
    return [one for one in so_far if name_of("regularize", one, "") != new] + [more]


def _optimizer(evidence: Evidence, change: Change) -> str | None:
    """Return the optimizer of a change as an expression, or None if it has none."""
    stepping = Change(lr=change.lr, optimizer=change.optimizer, groups=change.groups)
    # Weights that the change unfreezes are its own business: read before the model is changed.
    fresh = evidence.fresh(dataclasses.replace(stepping, model=change.model))
    extra = {k.partition(".")[2]: v for k, v in change.written if _about("optimizer", [k])}
    text = optimizer_text(fresh.optimizer, fresh.model, extra)
    regularizers = choose_regularizers(fresh.task.regularize or ())
    options = merged(one.optimizer_options() for one in regularizers)
    try:
        return None if text is None else choose_optimizer(text, options)[1]
    except RavineError:
        return None


def optimizer_text(
    optimizer: torch.optim.Optimizer, model: nn.Module, extra: Mapping[str, str] | None = None
) -> str | None:
    """Return the expression that makes the same optimizer, or None if there is none.

    None for a class that is not PyTorch's or Ravine's, for one that Ravine does not have, for
    groups that differ, for weights left out, and for hooks that no option stands for.

    Args:
        optimizer: one that was just made.
        model: whose weights it holds.
        extra: options that cannot be read off it; ``{lr}`` in them is the learning rate.

    >>> optimizer_text(torch.optim.SGD((model := nn.Linear(1, 1)).parameters(), 0.1, 0.9), model)
    'sgd(lr=0.1, momentum=0.9)'
    """
    cls, extra = type(optimizer), extra or {}
    name = expression_name(cls.__name__)
    if not cls.__module__.startswith(("torch.optim.", "ravine.optim")) or name not in OPTIMIZERS:
        return None
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    if any(weight.requires_grad and id(weight) not in held for weight in model.parameters()):
        return None
    if getattr(optimizer, "_optimizer_step_pre_hooks", None) and "clip_norm" not in extra:
        return None
    known = inspect.signature(OPTIMIZERS[name]).parameters
    first, *others = optimizer.param_groups
    given: dict[str, Any] = {}
    for key, value in first.items():
        if key in _HOW or key in _OURS:
            continue
        if any(_plain(group.get(key)) != _plain(value) for group in others):
            return None
        if key == "decoupled_weight_decay":
            if value != (name == "adamw"):
                return None
        elif key not in known:
            return None
        elif key == "lr" or _plain(value) != _plain(known[key].default):
            given[key] = _plain(value)
    given["lr"] = _lr(first)
    if given["lr"] is None:
        return None
    words = {key: value if key == "lr" else repr(value) for key, value in given.items()}
    words |= {key: value.format(lr=given["lr"]) for key, value in extra.items()}
    return f"{name}({', '.join(f'{key}={value}' for key, value in words.items())})"


def _lr(group: Mapping[str, Any]) -> str | None:
    schedule = group.get("schedule", group["lr"])
    if isinstance(schedule, Schedule):
        return repr(schedule)
    return repr(_plain(group.get("initial_lr", group["lr"])))


def _plain(value: Any) -> Any:
    """Return a number as it is written: 0.1 * 0.1 is 0.01."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(f"{value.item():.7g}")  # it is float32's
    return float(f"{value:.12g}") if isinstance(value, float) else value
