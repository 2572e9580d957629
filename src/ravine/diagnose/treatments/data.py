"""Remedies of inputs and targets."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ravine.diagnose.program import Change
from ravine.tasks import Task
from ravine.tasks.preparation import Standardiser


def _standardised(task: Task, which: int) -> Task:
    if not isinstance(task.train, tuple):
        return task
    scaler = Standardiser.of(task.train[which])
    changes: dict[str, Any] = {}
    for part in ("train", "valid", "test"):
        data = getattr(task, part)
        if isinstance(data, tuple):
            pair: list[Tensor] = list(data)
            pair[which] = scaler(pair[which]).to(data[which].dtype)
            changes[part] = tuple(pair)
    return dataclasses.replace(task, **changes)


def _inputs(task: Task) -> Task:
    return _standardised(task, 0) if task_inputs_are_numbers(task) else task


def _targets(task: Task) -> Task:
    return _standardised(task, 1)


def _both(task: Task) -> Task:
    return _targets(_inputs(task))


def task_inputs_are_numbers(task: Task) -> bool:
    """Return whether the inputs are floating-point tensors in memory."""
    return isinstance(task.train, tuple) and torch.is_floating_point(task.train[0])


def _apart(task: Task) -> Task:
    changes: dict[str, Any] = {}
    for part in ("train", "valid", "test"):
        data = getattr(task, part)
        if isinstance(data, tuple) and torch.is_floating_point(data[0]):
            scaler = Standardiser.of(data[0])
            changes[part] = (scaler(data[0]).to(data[0].dtype), data[1])
    return dataclasses.replace(task, **changes)


def _anew(task: Task) -> Task:
    if not isinstance(task.train, tuple) or not isinstance(task.valid, tuple):
        return task
    rows = len(task.train[0])
    X, y = (torch.cat(pair) for pair in zip(task.train, task.valid, strict=True))
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0)).to(X.device)
    first, second = order[:rows], order[rows:]
    changes: dict[str, Any] = {"train": (X[first], y[first]), "valid": (X[second], y[second])}
    return dataclasses.replace(task, **changes)


STANDARDISE_APART = Change(
    "give the inputs of training and validation the same mean and deviation", task=_apart
)
SPLIT_ANEW = Change("draw training and validation rows anew from all, at random", task=_anew)
STANDARDISE_INPUTS = Change("standardise the inputs by the training data", task=_inputs)
STANDARDISE_TARGETS = Change("standardise the targets by the training data", task=_targets)
STANDARDISE_BOTH = Change("standardise inputs and targets by the training data", task=_both)
