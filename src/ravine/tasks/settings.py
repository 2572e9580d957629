"""Checks of how a task says it is trained: optimizer, scheduler, epochs, batches, regularisers."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from ravine.errors import TaskError, unknown_name

INTERVALS = ("epoch", "step")


def check_settings(task: Any) -> None:
    """Raise TaskError, or UnknownNameError, if a setting of the task cannot be used."""
    _check_optimizer(task.name, task.optimizer)
    _check_scheduler(task.name, task.scheduler, task.scheduler_interval)
    if task.epochs is not None and not _is_count(task.epochs):
        raise TaskError(
            "epochs is not a count",
            where=f"task {task.name!r}",
            got=repr(task.epochs),
            expected="an integer of 1 or more",
            do="write epochs=20",
        )
    if task.batch_size is not None:
        _check_batch_size(task.name, task.batch_size, task.train)
    if not isinstance(task.regularize, list | tuple):
        raise TaskError(
            "regularize is not a list",
            where=f"task {task.name!r}",
            got=repr(task.regularize),
            expected="a list of expressions",
            do="write regularize=['dropout(0.1)']",
        )


def _check_optimizer(task: str, optimizer: object) -> None:
    if optimizer is None or (isinstance(optimizer, str) and optimizer.strip()):
        return
    made = isinstance(optimizer, torch.optim.Optimizer)
    if callable(optimizer) and not made:
        return
    raise TaskError(
        "the optimizer is neither an expression nor a function of the parameters",
        where=f"optimizer of task {task!r}",
        got=f"{type(optimizer).__name__}, made already" if made else repr(optimizer),
        expected='text such as "adam(lr=1e-3)", or a function that returns a torch optimizer',
        do="write optimizer=lambda params: torch.optim.SGD(params, lr=0.1)",
    )


def _check_scheduler(task: str, scheduler: object, interval: object) -> None:
    made = hasattr(scheduler, "step") and not isinstance(scheduler, type)
    if scheduler is not None and (made or not callable(scheduler)):
        raise TaskError(
            "the scheduler is not a function of the optimizer",
            where=f"scheduler of task {task!r}",
            got=f"{type(scheduler).__name__}, made already" if made else repr(scheduler),
            expected="a function of the optimizer that returns something with a step()",
            do="write scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10)",
        )
    if interval not in INTERVALS:
        raise unknown_name("scheduler_interval", str(interval), INTERVALS, where=f"task {task!r}")
    if interval != "epoch" and scheduler is None:
        raise TaskError(
            "there is an interval, and no scheduler to step",
            where=f"scheduler_interval of task {task!r}",
            got=repr(interval),
            do="give the scheduler, or leave scheduler_interval out",
        )


def _check_batch_size(task: str, batch_size: object, train: object) -> None:
    if batch_size != "all" and not _is_count(batch_size):
        raise TaskError(
            "batch_size is not a count",
            where=f"task {task!r}",
            got=repr(batch_size),
            expected="an integer of 1 or more, or 'all'",
            do="write batch_size=64",
        )
    if isinstance(train, DataLoader):
        raise TaskError(
            "the batch size is given twice",
            where=f"task {task!r}",
            got=f"batch_size={batch_size!r}, and a DataLoader, which has its own",
            do="leave batch_size out, or give the task the Dataset",
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
