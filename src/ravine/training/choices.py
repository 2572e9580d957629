"""Every choice of a run settled, before anything is computed or written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from ravine.errors import ArgumentError
from ravine.tasks import Task, load_task
from ravine.tasks.loading import TaskSource
from ravine.training.batches import BatchSize, check_batch_size
from ravine.training.catalog import (
    Maker,
    choose_loss,
    choose_optimizer,
    choose_regularizers,
    merged,
    written,
)
from ravine.training.devices import Way, settled

OPTIMIZER, BATCH_SIZE, EPOCHS = "adam(lr=1e-3)", 64, 20
"""What is taken where neither the caller nor the task says anything."""


@dataclass(frozen=True)
class Choices:
    """What a run is made of; ``config`` is the same as plain words and numbers."""

    task: Task
    maker: Maker
    loss: Any
    batch_size: BatchSize
    epochs: int
    regularizers: list[Any]
    seed: int
    device: torch.device
    way: Way
    config: dict[str, Any]


def settle(
    source: TaskSource,
    optimizer: Any,
    loss: Any,
    batch_size: BatchSize | None,
    epochs: int | None,
    regularize: Iterable[Any] | None,
    seed: int,
    device: torch.device,
    saved: Mapping[str, Any] | None,
    way: Mapping[str, Any] | None = None,
) -> Choices:
    """Return the choices of `ravine.train`'s arguments.

    Args:
        saved: the configuration of the run that goes on, which decides what is not given; None
            for a new run, where the task does.
        way: the fields of `Way` that were given, among others.
    """
    task = load_task(source, seed)
    if loss is None and saved is not None and saved["loss"] != choose_loss(task.loss, {})[1]:
        loss = saved["loss"]
    if loss is not None:
        task = task.with_loss(loss)
    if regularize is None:
        regularize = task.regularize
        if saved is not None and _written(regularize) != saved["regularize"]:
            regularize = saved["regularize"]
    regularizers = choose_regularizers(regularize)
    options = merged(one.optimizer_options() for one in regularizers)
    if optimizer is None:
        optimizer = OPTIMIZER if task.optimizer is None else task.optimizer
        if saved is not None and choose_optimizer(optimizer, options)[1] != saved["optimizer"]:
            optimizer = saved["optimizer"]
    maker, optimizer_text = choose_optimizer(optimizer, options)
    loss_function, loss_text = choose_loss(
        task.loss, merged(one.loss_options() for one in regularizers)
    )
    if batch_size is None and saved is not None and not isinstance(task.train, DataLoader):
        batch_size = saved["batch_size"]
    size = _batch_size(task, batch_size)
    if epochs is None:
        epochs = saved["epochs"] if saved is not None else task.epochs or EPOCHS
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 0:
        raise ArgumentError("epochs cannot be used", got=repr(epochs), expected="an integer >= 0")
    how = settled(way or {}, saved)
    config = {
        "task": source if isinstance(source, str) else task.name,
        "optimizer": optimizer_text,
        "loss": loss_text,
        "batch_size": task.train.batch_size if isinstance(task.train, DataLoader) else size,
        "epochs": epochs,
        "regularize": [repr(one) for one in regularizers],
        "seed": seed,
        "device": str(device),
        **how.to_config(),
    }
    if task.scheduler is not None:
        config["scheduler"] = f"{written(task.scheduler)}, every {task.scheduler_interval}"
    return Choices(
        task, maker, loss_function, size, epochs, regularizers, seed, device, how, config
    )


def _written(regularize: Any) -> list[str]:
    return [repr(one) for one in choose_regularizers(regularize)]


def _batch_size(task: Task, given: BatchSize | None) -> BatchSize:
    if given is None:
        return check_batch_size(BATCH_SIZE if task.batch_size is None else task.batch_size)
    if isinstance(task.train, DataLoader):
        raise ArgumentError(
            "the batch size is given twice",
            where=f"train of task {task.name!r}",
            got=f"batch_size={given!r}, and a DataLoader, which has its own",
            do="leave batch_size out, or give the task the Dataset",
        )
    return check_batch_size(given)
