"""A run of the program as the program would make it, and what was seen on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.program import Fresh
from ravine.diagnose.quality import quality
from ravine.tasks.seeding import seeded

Observer = Callable[[Fresh, int, Tensor], None]
"""Called after backward and before the step: the program, the step from 1, the loss."""

LOOKED_AT = 1024
"""Rows of each part on which loss and quality are taken after an epoch."""


@dataclass
class Trace:
    """What was seen in one replay.

    Attributes:
        losses: of every step's batch.
        train_loss, train_quality, valid_loss, valid_quality: in evaluation mode at the end of every
            epoch (of some, where there are many), on the first rows of each part.
        epochs_seen: at which epochs those were taken.
        non_finite: the step whose loss or weights were not finite, or None.
        seconds: how long it took.
        complete: whether all epochs were run.
    """

    losses: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_quality: list[float] = field(default_factory=list)
    valid_loss: list[float] = field(default_factory=list)
    valid_quality: list[float] = field(default_factory=list)
    epochs_seen: list[int] = field(default_factory=list)
    non_finite: int | None = None
    seconds: float = 0.0
    complete: bool = True

    @property
    def final(self) -> float:
        """The training loss in evaluation mode over the last looks; infinite after a divergence."""
        return settled(self.train_loss) if self.non_finite is None else math.inf

    @property
    def final_quality(self) -> float:
        """The quality on the training data over the last looks."""
        return settled(self.train_quality) if self.non_finite is None else math.nan

    def until_best(self) -> Trace:
        """Return the run up to its look of the least validation loss, as early stopping keeps it."""
        if not self.valid_loss:
            return self
        smooth = [settled(self.valid_loss[: k + 1]) for k in range(len(self.valid_loss))]
        end = 1 + min(range(len(smooth)), key=smooth.__getitem__)
        lists = ("train_loss", "train_quality", "valid_loss", "valid_quality", "epochs_seen")
        return replace(self, **{name: getattr(self, name)[:end] for name in lists})


def replay(
    fresh: Fresh, observe: Observer | None = None, *, deadline: float = math.inf, looks: int = 20
) -> Trace:
    """Run a program to its end, or to a time.

    Args:
        fresh: a program just made.
        observe: called at every step.
        deadline: of time.perf_counter.
        looks: how many epochs are looked at, at most.
    """
    trace = Trace()
    start = time.perf_counter()
    model, optimizer = fresh.model, fresh.optimizer
    samples = samples_of(fresh)
    seen = {max(1, round(k * fresh.epochs / looks)) for k in range(1, looks + 1)}
    with seeded(fresh.seed):
        for epoch in range(1, fresh.epochs + 1):
            model.train()
            for inputs, targets in fresh.train.epoch(epoch):
                optimizer.zero_grad()
                loss: Any = fresh.loss(model(inputs), targets)
                loss.backward()
                value = float(loss.detach())
                trace.losses.append(value)
                if observe is not None:
                    observe(fresh, len(trace.losses), loss)
                if not math.isfinite(value):
                    trace.non_finite = len(trace.losses)
                    break
                optimizer.step()
                if fresh.scheduler is not None and _every(fresh) == "step":
                    fresh.scheduler.step()
                if time.perf_counter() > deadline:
                    trace.complete = False
                    break
            if trace.non_finite is None and not _finite(model):
                trace.non_finite = len(trace.losses)
            if epoch in seen or trace.non_finite is not None or not trace.complete:
                _look(trace, fresh, samples, epoch)
            if trace.non_finite is not None or not trace.complete:
                break
            if fresh.scheduler is not None and _every(fresh) == "epoch":
                _step_scheduler(fresh, trace)
            observe_metric = getattr(optimizer, "observe", None)
            if observe_metric is not None and trace.train_loss:
                observe_metric((trace.valid_loss or trace.train_loss)[-1])
    trace.seconds = time.perf_counter() - start
    return trace


def samples_of(fresh: Fresh, rows: int = LOOKED_AT) -> list[tuple[Tensor, Tensor]]:
    """Return the first rows of the training data and of the validation data, if there is any."""
    found = []
    with torch.random.fork_rng(devices=[]):
        for batches in (fresh.train, fresh.valid):
            if batches is None:
                continue
            inputs, targets, count = [], [], 0
            for X, y in batches.epoch(1):
                inputs.append(X)
                targets.append(y)
                count += len(X)
                if count >= rows:
                    break
            found.append((torch.cat(inputs)[:rows], torch.cat(targets)[:rows]))
    return found


def evaluated(fresh: Fresh, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return loss and quality of rows, in evaluation mode."""
    was = fresh.model.training
    fresh.model.eval()
    with torch.no_grad():
        output = fresh.model(inputs)
        try:
            loss = float(fresh.loss(output, targets))
        except (ValueError, RuntimeError):  # a loss that refuses NaN
            loss = math.nan
    fresh.model.train(was)
    return loss, quality(output, targets)


def _look(trace: Trace, fresh: Fresh, samples: list[tuple[Tensor, Tensor]], epoch: int) -> None:
    trace.epochs_seen.append(epoch)
    names = (("train_loss", "train_quality"), ("valid_loss", "valid_quality"))
    for (loss_name, quality_name), rows in zip(names, samples, strict=False):
        loss, good = evaluated(fresh, *rows)
        getattr(trace, loss_name).append(loss)
        getattr(trace, quality_name).append(good)


def _finite(model: nn.Module) -> bool:
    return all(math.isfinite(float(p.detach().sum())) for p in model.parameters())


def _every(fresh: Fresh) -> str:
    return fresh.task.scheduler_interval


def _step_scheduler(fresh: Fresh, trace: Trace) -> None:
    if isinstance(fresh.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        fresh.scheduler.step((trace.valid_loss or trace.train_loss or [math.inf])[-1])
    else:
        fresh.scheduler.step()


def settled(values: list[float]) -> float:
    """Return the median of the last three values; NaN if there are none."""
    last = values[-3:]
    return sorted(last)[len(last) // 2] if last else math.nan
