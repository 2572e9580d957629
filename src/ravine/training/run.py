"""A run whose every choice is settled: it trains, and leaves a record however it ends."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ravine.errors import Interrupted, NonFiniteError, RavineError
from ravine.training.acting import parts_of, stopper_of
from ravine.training.batches import evaluation_batches, training_batches
from ravine.training.checkpoints import Store
from ravine.training.choices import Choices
from ravine.training.devices import Devices, Team, own_device
from ravine.training.environment import environment
from ravine.training.evaluation import evaluate
from ravine.training.events import EpochDone, Event, Listener, RunEnded
from ravine.training.hooks import Hooks
from ravine.training.keeper import Interval, Keeper
from ravine.training.loop import CHECK_EVERY, Loop
from ravine.training.making import make_optimizer
from ravine.training.record import Record
from ravine.training.reporter import Reporter
from ravine.training.run_directory import CHECKPOINTS, RunDirectory
from ravine.training.scheduling import Scheduling, check_same_lr
from ravine.training.signals import Signals
from ravine.training.state import load_state
from ravine.training.telling import facts_of, started


@dataclass
class Run:
    """What a run is made of; `execute` trains.

    Attributes:
        directory: where this process writes the run; None for no place, or for another process.
        kept: whether one of the processes writes it.
    """

    choices: Choices
    directory: RunDirectory | None
    kept: bool
    listeners: Sequence[Listener]
    every: Interval
    resumed: bool = False
    new_lr: bool = False
    hooks: Hooks = field(default_factory=Hooks)
    team: Team = field(default_factory=Team)

    def __post_init__(self) -> None:
        self.signals = Signals(self.team.agreement())

    def execute(self) -> Record:
        """Train, and leave the record in whatever way the run ends.

        An error that ends the run has the record as its attribute ``record``.
        """
        try:
            loop, notes = self._prepared()
            record = Record(
                name=self.choices.task.name,
                model=loop.model,
                config=self.choices.config,
                environment=environment(),
                run_dir=None if self.directory is None else self.directory.path,
            )
            keeper = self._keeper(loop, record, notes)
            if self.directory is not None and not self.resumed:
                self.directory.start(record.config, record.environment)
        except BaseException:
            if self.directory is not None:
                self.directory.close() if self.resumed else self.directory.abandon()
            raise
        start = time.perf_counter()
        try:
            # Watched while files are written as well: torchrun sends SIGTERM when one process ends.
            with self.signals.watched():
                try:
                    self._emit(started(self.choices, loop, notes, record.run_dir))
                    with self.team.guarded():
                        self._epochs(loop, record, keeper)
                except (Exception, KeyboardInterrupt) as error:
                    self._broken_off(error, loop, record, keeper, time.perf_counter() - start)
                    raise
            try:
                self._finish(loop, record, time.perf_counter() - start)
            except Exception as error:
                error.record = record  # type: ignore[attr-defined]
                raise
        finally:
            if self.directory is not None:
                self.directory.close()
        return record

    def _keeper(self, loop: Loop, record: Record, notes: list[str]) -> Keeper | None:
        """Return what writes the checkpoints, the loop put where the newest one was written."""
        if not self.kept:
            return None
        directory, team = self.directory, self.team
        store = None if directory is None else Store(directory.path / CHECKPOINTS)
        if self.resumed:
            position, state, passed = team.led(store.newest if store is not None else _nothing)
            notes += passed
            if position is None:
                notes.append("resumed from the start: there is no checkpoint yet")
            else:
                load_state(loop, state["loop"], keep_lr=self.new_lr, seed=self.choices.seed)
                record.history.extend(state["history"])
                notes.append(f"resumed at step {loop.step}, epoch {loop.epoch + 1}")
            if directory is not None:
                directory.start(record.config, record.environment)
                directory.rewrite(record.history)
        keeper = Keeper(
            loop, store, self.every, record.history, self.signals, agreed=team.agreement()
        )
        loop.after_step = keeper.after_step
        return keeper

    def _prepared(self) -> tuple[Loop, list[str]]:
        """Return the loop, and what the user should know before it begins."""
        model = copy.deepcopy(self.choices.task.model)
        notes = [
            note
            for one in self.choices.regularizers
            if (note := one.prepare_model(model, seed=self.choices.seed))
        ]
        device = own_device(self.choices.device)
        model.to(device)
        devices = Devices.made(model, self.choices.way, self.team, device)
        devices.own_masks(model)
        devices.own_random(self.choices.seed)
        optimizer, grouping = make_optimizer(self.choices.maker, model)
        batches = training_batches(
            self.choices.task.train, self.choices.batch_size, device, self.choices.seed
        )
        valid = self.choices.task.valid
        loss = self.choices.loss
        if isinstance(loss, nn.Module):  # the caller's own stays where it is
            loss = copy.deepcopy(loss).to(device)
        loop = Loop(
            model=model,
            optimizer=optimizer,
            loss=loss,
            batches=batches,
            valid=None if valid is None else evaluation_batches(valid, device, batches.size),
            metrics=self.choices.task.metric_functions(),
            stopper=stopper_of(self.choices.regularizers, self.choices.task),
            parts=parts_of(self.choices.regularizers, self.choices.seed),
            scheduler=self._scheduler(optimizer),
            epochs=self.choices.epochs,
            reporter=Reporter(self._emit if self.listeners else None, self.team.agreement()),
            on_step=self.hooks.after_step,
            after_step=self.signals.check,
            check=self.signals.check,
            look_every=1 if device.type == "cpu" else CHECK_EVERY,
            devices=devices,
        )
        return loop, notes + grouping

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> Scheduling | None:
        task = self.choices.task
        if task.scheduler is None:
            return None
        check_same_lr(self.new_lr)
        made = Scheduling(task.scheduler, task.scheduler_interval, optimizer)
        if self.directory is not None:
            made.state_dict()  # one that cannot be written is told before the run, not after hours
        return made

    def _epochs(self, loop: Loop, record: Record, keeper: Keeper | None) -> None:
        stopped = loop.stopper is not None and loop.stopper.stopped
        while loop.epoch < self.choices.epochs and not stopped:
            row, stopped = loop.run_epoch()
            record.history.append(row)
            try:
                stopped |= self.hooks.after_epoch(row, loop)
            finally:
                if self.directory is not None:
                    self.directory.add_row(row)
            self._emit(EpochDone(row))
            if keeper is not None:
                keeper.after_epoch()
            self.signals.check()
        if stopped:
            record.status, record.message = "stopped early", self.hooks.reason or ""
        if keeper is not None:
            keeper.end(whole=True)

    def _broken_off(
        self,
        error: BaseException,
        loop: Loop,
        record: Record,
        keeper: Keeper | None,
        seconds: float,
    ) -> None:
        """Leave what was reached; nothing that goes wrong here hides the error."""
        error.record = record  # type: ignore[attr-defined]
        what = error.what if isinstance(error, RavineError) else str(error)
        if isinstance(error, NonFiniteError):
            loop.go_back()
            kept = f"of epoch {loop.epoch}" if loop.epoch else "at the start"
            record.status = "diverged"
            record.message = f"{error}\n  weights:  as they were {kept}"
        elif isinstance(error, KeyboardInterrupt):
            record.status = "interrupted"
            record.message = f"in epoch {loop.epoch + 1}, after step {loop.step}"
            if isinstance(error, Interrupted):
                record.message += f", by {error.signal}"
        else:
            record.status, record.message = "failed", f"{type(error).__name__}: {what}"
            if loop.step == 0:  # the choices do not fit each other: there is no run to be kept
                if self.directory is not None and not self.resumed:
                    self.directory.abandon()
                return
        together = isinstance(error, (NonFiniteError, Interrupted))  # in all processes alike
        try:
            if keeper is not None:
                keeper.end(whole=isinstance(error, Interrupted))
            if together or not loop.devices.layout.divided:
                self._finish(loop, record, seconds)
            else:  # the others do not help to put the weights together
                self._emit(RunEnded(record))
        except Exception as another:
            error.add_note(f"and then: {type(another).__name__}: {another}")

    def _finish(self, loop: Loop, record: Record, seconds: float) -> None:
        """Settle model and numbers, write the files, tell the listeners."""
        try:
            self._settle(loop, record)
            record.facts = facts_of(self.choices, loop, seconds)
            if self.directory is not None:
                self.directory.finish(record)
        finally:
            self._emit(RunEnded(record))
        self.hooks.at_end(record)

    def _settle(self, loop: Loop, record: Record) -> None:
        """Put the weights in place that the run was for, and take their numbers."""
        model, stopper = loop.model, loop.stopper
        if record.status != "diverged":  # there they are in place already
            with loop.averaged():
                tensors = [*model.parameters(), *model.buffers()]
                final = [tensor.detach().clone() for tensor in tensors]
            with torch.no_grad():
                for tensor, value in zip(tensors, final, strict=True):
                    tensor.copy_(value)
        row = record.history[-1] if record.history else {}
        best: dict[str, float] = {}
        if stopper is not None and stopper.restore_best and stopper.best_epoch is not None:
            stopper.restore(model)
            row = record.history[stopper.best_epoch - 1]
            best = {"best_epoch": stopper.best_epoch}
            kept = f"the weights of epoch {stopper.best_epoch} are kept"
            record.message = "; ".join(filter(None, [record.message, stopper.message, kept]))
        elif stopper is not None and record.status == "stopped early":
            record.message = record.message or stopper.message
        model.eval()
        for weight in model.parameters():
            weight.grad = None
        record.metrics = {name: value for name, value in row.items() if "/" in name} | best
        if self.choices.task.test is not None and record.status in ("completed", "stopped early"):
            device = own_device(self.choices.device)
            test = evaluation_batches(self.choices.task.test, device, loop.batches.size)
            record.metrics |= evaluate(
                model, test, loop.loss, loop.metrics, part="test", devices=loop.devices
            )
        record.model = loop.devices.plain()

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def _nothing() -> tuple[None, None, list[str]]:
    """Stand in for what the first process alone reads."""
    return None, None, []
