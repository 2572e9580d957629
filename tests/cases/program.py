"""A plain loop of torch over a task: what a person's own program does, faults included.

Not `ravine.train`, which trains a copy of the model and refuses some of the faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

import ravine
from ravine.tasks import load_task
from ravine.tasks.seeding import seeded
from ravine.training.catalog import choose_loss, choose_optimizer
from ravine.training.scheduling import Scheduling


@dataclass
class Program:
    """A task that was trained.

    Attributes:
        task, model: what was trained.
        loss: as a callable.
        train_losses, valid_losses: one an epoch, the training loss as the mean over its batches.
    """

    task: ravine.Task
    model: nn.Module
    loss: Any
    train_losses: list[float] = field(default_factory=list)
    valid_losses: list[float] = field(default_factory=list)

    def outputs(self, part: str) -> tuple[Tensor, Tensor]:
        """Return outputs and targets over a part of the data, in evaluation mode."""
        inputs, targets = whole(getattr(self.task, part))
        self.model.eval()
        with torch.no_grad():
            return self.model(inputs), targets


def trained(function: Callable[[int], ravine.Task], seed: int) -> Program:
    """Build the task by its function and train it; a loss that is not finite ends the run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are small: a second thread costs time
    try:
        task = load_task(function, seed)
        with seeded(seed + 1000):
            return _trained(task)
    finally:
        torch.set_num_threads(threads)


def _trained(task: ravine.Task) -> Program:
    model = task.model
    program = Program(task, model, choose_loss(task.loss, {})[0])
    optimizer = choose_optimizer(task.optimizer, {})[0](list(model.parameters()))
    scheduling = (
        None
        if task.scheduler is None
        else Scheduling(task.scheduler, task.scheduler_interval, optimizer)
    )
    assert task.epochs is not None
    for _ in range(task.epochs):
        model.train()
        losses = []
        for inputs, targets in batches(task):
            optimizer.zero_grad()
            loss = program.loss(model(inputs), targets)
            loss.backward()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                program.train_losses.append(losses[-1])
                return program
            optimizer.step()
            if scheduling is not None:
                scheduling.after_step(loss.detach())
        program.train_losses.append(sum(losses) / len(losses))
        heard = program.train_losses[-1]
        if task.valid is not None:
            heard = float(program.loss(*program.outputs("valid")))
            program.valid_losses.append(heard)
        if scheduling is not None:
            scheduling.after_epoch(heard)
    return program


def batches(task: ravine.Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of an epoch, in a random order."""
    if isinstance(task.train, DataLoader):
        yield from task.train
        return
    inputs, targets = whole(task.train)
    size = len(inputs) if task.batch_size == "all" else task.batch_size
    assert size is not None
    for rows in torch.randperm(len(inputs)).split(size):
        yield inputs[rows], targets[rows]


def whole(data: Any) -> tuple[Tensor, Tensor]:
    """Return all rows of a part at once; a Dataset is asked for each."""
    if isinstance(data, tuple):
        return data
    if isinstance(data, DataLoader):
        data = data.dataset
    inputs, targets = default_collate([data[row] for row in range(len(data))])
    return inputs, targets
