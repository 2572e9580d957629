"""The range test: train a few steps while the learning rate grows, once for every seed."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError
from ravine.training.batches import Batch, Batches, training_batches
from ravine.training.catalog import OptimizerChoice
from ravine.training.choices import Choices
from ravine.training.making import make_optimizer

__all__ = ["Sweep", "sweep"]

BLOWN_UP = 3.0
"""A sweep ends where the loss is above its start by so many times its largest fall, or its start."""


@dataclass(frozen=True)
class Sweep:
    """What one seed gave: a row for every step until the end of the sweep.

    Attributes:
        seed: of the weights and of the order of the data.
        losses: the loss of each step's batch before its update.
        starts: the loss of the same batch by the weights that the sweep began with.
        diverged: whether the sweep ended because the loss blew up or was not finite.
    """

    seed: int
    losses: list[float]
    starts: list[float]
    diverged: bool

    @property
    def changes(self) -> list[float]:
        """How much each batch's loss differs from that of the start."""
        return [loss - start for loss, start in zip(self.losses, self.starts, strict=True)]


def sweep(choices: Choices, lrs: Sequence[float]) -> Sweep:
    """Train a copy of a run's model for a step with each learning rate in turn.

    A batch's loss says more about the batch than about the learning rate, so each is compared with
    what the weights of the start make of the same batch.
    """
    model = copy.deepcopy(choices.task.model)
    for one in choices.regularizers:
        one.prepare_model(model, seed=choices.seed)
    model.to(choices.device).train()
    first = copy.deepcopy(model)
    loss_of = choices.loss
    if isinstance(loss_of, nn.Module):
        loss_of = copy.deepcopy(loss_of).to(choices.device)
    optimizer = _optimizer(choices, model, lrs[0])
    ratios = _ratios(optimizer)
    batches = training_batches(choices.task.train, choices.batch_size, choices.device, choices.seed)
    losses: list[float] = []
    starts: list[float] = []
    lowest = 0.0
    for lr, (inputs, targets) in zip(lrs, _endless(batches), strict=False):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = lr * ratio
        with torch.no_grad():
            start = float(loss_of(first(inputs), targets))
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            return Sweep(choices.seed, losses, starts, diverged=True)
        losses.append(value)
        starts.append(start)
        lowest = min(lowest, value - start)
        if value - start > BLOWN_UP * max(-lowest, abs(start)):
            return Sweep(choices.seed, losses, starts, diverged=True)
        loss.backward()
        optimizer.step()
    return Sweep(choices.seed, losses, starts, diverged=False)


def _optimizer(choices: Choices, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    maker = choices.maker
    if isinstance(maker, OptimizerChoice):  # a schedule would write over the rates of the sweep
        maker = OptimizerChoice(maker.func, **{**maker.keywords, "lr": lr})
    return make_optimizer(maker, model)[0]


def _ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return each group's learning rate relative to the first's, which the sweep keeps."""
    lrs = [group.get("lr") for group in optimizer.param_groups]
    numbers = [float(lr) for lr in lrs if isinstance(lr, int | float | Tensor) and float(lr) > 0]
    if len(numbers) < len(lrs):
        raise ArgumentError(
            "the optimizer has no learning rate to be swept",
            got=f"lr {lrs} in its groups",
            expected="a number above 0 in every group",
        )
    return [lr / numbers[0] for lr in numbers]


def _endless(batches: Batches) -> Iterator[Batch]:
    """Give batches, epoch after epoch; data without any gives none."""
    for number in itertools.count(1):
        found: Any = None
        for found in batches.epoch(number):
            yield found
        if found is None:
            return
