"""The loop: epochs of steps, watched for numbers that are not finite."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import Interrupted
from ravine.optim import Optimizer
from ravine.regularize import EarlyStopping, Part
from ravine.tasks.metrics import Metric
from ravine.training.averaging import averaged
from ravine.training.batches import Batch, Batches
from ravine.training.batches.protocol import no_batch
from ravine.training.devices import Devices
from ravine.training.evaluation import evaluate
from ravine.training.finite import finite_everywhere, nonfinite_error
from ravine.training.random_state import random_state, set_random_state
from ravine.training.recovery.skipping import Skipper
from ravine.training.reporter import Reporter
from ravine.training.scheduling import Scheduling
from ravine.training.step import make_step

CHECK_EVERY = 32
"""Steps between two looks at the loss on a device where looking means waiting for it."""


OnStep = Callable[["Loop", Tensor, Tensor, Tensor], bool]
"""Takes the loop, the loss of the step, its inputs and its targets; true ends the epoch there."""


@dataclass
class Loop:
    """A training loop and where it stands.

    Attributes:
        model, optimizer, loss, batches: what is trained, by what, on what.
        valid: batches looked at after every epoch, or None.
        metrics: name -> function, for the validation data.
        parts: what else acts while training, in this order.
        epochs: how many there will be.
        stopper: decides on an early end, or None.
        scheduler: steps the task's scheduler, or None.
        reporter, on_step: tell the listeners of steps, and a person's own code, if there is some.
        after_step: called after every step, when the state is whole; what it raises ends the run.
        check: called between the batches of an evaluation, to end it early.
        look_every: steps between two looks at the loss.
        seed: of the run.
        devices: how steps are computed; None for one process, whole batches and all bits.
        step: updates made so far.
        epoch: epochs completed.
        batch: batches of the epoch under way that were trained on, or left out.
        skipper: leaves out steps that are not finite, or None.
        skipped, skipped_in_a_row, rollbacks: how often a run was saved so far.
        returned_to: the step that it went back to last, or -1.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Any
    batches: Batches
    valid: Batches | None
    metrics: dict[str, Metric]
    stopper: EarlyStopping | None
    parts: list[Part] = field(default_factory=list)
    epochs: int = 1
    scheduler: Scheduling | None = None
    reporter: Reporter = field(default_factory=Reporter)
    on_step: OnStep | None = None
    after_step: Callable[[], None] | None = None
    check: Callable[[], None] | None = None
    look_every: int = 1
    seed: int = 0
    devices: Devices = None  # type: ignore[assignment]  # filled in below
    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    total: float = 0.0
    rows: int = 0
    samples: int = 0
    epoch_random: dict[str, Any] = field(default_factory=dict)
    skipper: Skipper | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    returned_to: int = -1
    loaded_norm: float | None = None
    _pending: list[Tensor] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = self.devices or Devices.alone(self.model)
        for part in self.parts:
            part.begin(self.model)
        self.current_step = make_step(
            self.model, self.loss, self.optimizer, self.devices, self.parts
        )

    def run_epoch(self) -> tuple[dict[str, Any], bool]:
        """Train for one epoch, or the rest of it; return its row of the history and whether to stop.

        Raises:
            NonFiniteError: a loss is NaN or infinite, or the weights are after the epoch. Where
                every loss is looked at (the CPU), the step of that loss was not made.
            TaskError: the training data has no batch.
        """
        start = time.perf_counter()
        self.reporter.progress.begin()
        self._train(start)
        self.check_weights()
        self.reporter.progress.end()
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.lr,
            "gradient_norm": self.gradient_norm(),
            "train/loss": self.total / self.rows,
        }
        stop = False
        for part in self.parts:
            part.after_epoch(self.epoch + 1, self.epochs)
        with self.averaged():
            if self.valid is not None:
                row |= self._evaluated(self.valid)
            if self.stopper is not None:
                stop = self.stopper.observe({k: v for k, v in row.items() if "/" in k}, self.model)
            self.epoch += 1
            self.batch, self.total, self.rows = 0, 0.0, 0
        heard = row.get("valid/loss", row["train/loss"])
        if isinstance(self.optimizer, Optimizer):
            self.optimizer.observe(heard)
        if self.scheduler is not None:
            self.scheduler.after_epoch(heard)
        row["seconds"] = time.perf_counter() - start
        return row, stop

    @property
    def lr(self) -> float:
        """The learning rate of the first group, as the last step used it."""
        if self.scheduler is not None:
            return self.scheduler.used_lr
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def samples_per_second(self) -> float:
        """How many rows were trained on per second of training proper."""
        return self.samples / self.seconds if self.seconds else 0.0

    def gradient_norm(self) -> float:
        """Return the norm of the gradient over all weights."""
        if self.loaded_norm is not None:  # no step was made since the run was resumed
            return self.loaded_norm
        return self.current_step.gradient_norm()

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights in place, if there are any."""
        return averaged(self.model, self.optimizer, self.parts, self.batches)

    def settle(self) -> None:
        """Look at the losses that were not looked at yet.

        Raises:
            NonFiniteError: one of them is NaN or infinite.
        """
        if self._pending:
            self._look(self.step)

    def check_weights(self) -> None:
        """Look at the weights.

        Raises:
            NonFiniteError: one of them is NaN or infinite.
        """
        if not finite_everywhere(self, list(self.model.parameters())):
            raise nonfinite_error(self, "the weights are not finite", self.step)

    def forget(self) -> None:
        """Forget the losses that were not looked at."""
        self._pending.clear()
        self._sizes.clear()

    def _train(self, start: float) -> None:
        """Make the steps of the epoch that are left."""
        step, skipper = self.current_step, self.skipper
        step.begin_epoch()
        before, look, reporter = self.samples, self.look_every, self.reporter
        left = self._left()
        try:
            for batch in left:
                inputs, targets = self._changed(batch) if self.parts else batch
                if skipper is not None:
                    skipper.before(self)
                loss = step.gradient(inputs, targets)
                if skipper is not None and skipper.refuses(self, loss, (inputs, targets)):
                    self._left_out()
                    continue
                size = len(inputs)
                if look == 1:
                    value = loss.item()
                    if not math.isfinite(value):
                        raise nonfinite_error(self, f"the loss became {value}", self.step + 1)
                    self.total += value * size
                    reporter.progress.smoothed.add(value)
                else:
                    self._pending.append(loss.detach())
                    self._sizes.append(size)
                    if len(self._pending) == look:
                        self._look(self.step + 1)
                step.update()
                if self.scheduler is not None:
                    self.scheduler.after_step(loss.detach())
                for part in self.parts:
                    part.after_step(self.step + 1)
                self.loaded_norm = None
                self.rows += size
                self.samples += size
                self.step += 1
                self.batch += 1
                reporter.after_step(self, loss)
                stop = self.on_step is not None and self.on_step(self, loss, inputs, targets)
                if self.after_step is not None:
                    self.after_step()
                if stop:
                    break
            self.settle()
        finally:
            left.close()  # a thread that reads ahead ends now
            if self.samples != before:
                self.seconds += time.perf_counter() - start
        if self.rows == 0:
            if self.batch:
                raise nonfinite_error(self, "every step of the epoch was skipped", self.step + 1)
            raise no_batch(self.epoch + 1)

    def _left_out(self) -> None:
        """Go on behind a batch whose step is not made."""
        self.loaded_norm = None
        self.batch += 1
        if self.after_step is not None:
            self.after_step()

    def _left(self) -> Generator[Batch]:
        """Return the batches of the epoch that were not trained on yet."""
        if self.batch == 0:
            self.epoch_random = random_state()
            return self.batches.epoch(self.epoch + 1)
        # Data may draw from the global generators: the skipped batches are drawn as they were.
        here = random_state()
        set_random_state(self.epoch_random)
        left = self.batches.epoch(self.epoch + 1, skip=self.batch)
        set_random_state(here)
        return left

    def _changed(self, batch: Batch) -> Batch:
        """Return what is trained on in the place of a batch."""
        for part in self.parts:
            batch = part.batch(batch, self.step + 1)
        return batch

    def _evaluated(self, valid: Batches) -> dict[str, float]:
        before = random_state()
        try:
            return evaluate(
                self.model,
                valid,
                self.loss,
                self.metrics,
                part="valid",
                check=self.check,
                devices=self.devices,
            )
        except Interrupted:
            set_random_state(before)  # as if it had not begun: a resumed run evaluates anew
            raise

    def _look(self, last: int) -> None:
        """Add the losses to the sum over the rows; raise if one is not finite.

        Args:
            last: the step of the last of them, from 1.
        """
        first = last + 1 - len(self._pending)
        losses = torch.stack(self._pending).tolist()
        sizes = list(self._sizes)
        self._pending.clear()
        self._sizes.clear()
        for step, (loss, size) in enumerate(zip(losses, sizes, strict=True), start=first):
            if not math.isfinite(loss):
                raise nonfinite_error(self, f"the loss became {loss}", step)
            self.total += loss * size
            self.reporter.progress.smoothed.add(loss)
