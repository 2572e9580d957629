"""A run whose every choice is settled: it trains, and leaves a record however it ends."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ravine.errors import ArgumentTypeError, NonFiniteError, RavineError, TaskError, unknown_name
from ravine.optim import Optimizer
from ravine.regularize import EarlyStopping, decay_groups
from ravine.tasks import Task
from ravine.training.batches import BatchSize, evaluation_batches, training_batches
from ravine.training.catalog import Maker, OptimizerChoice
from ravine.training.environment import environment
from ravine.training.evaluation import evaluate
from ravine.training.events import EpochDone, Event, Listener, RunEnded, RunStarted
from ravine.training.loop import CHECK_EVERY, Loop
from ravine.training.record import Record
from ravine.training.run_directory import RunDirectory

DECAYING = ("weight_decay", "l1", "l2")


@dataclass
class Run:
    """What a run is made of; `execute` trains."""

    task: Task
    maker: Maker
    loss: Any
    batch_size: BatchSize
    epochs: int
    regularizers: list[Any]
    seed: int
    device: torch.device
    directory: RunDirectory | None
    listeners: Sequence[Listener]
    config: dict[str, Any]

    def execute(self) -> Record:
        """Train, and leave the record in whatever way the run ends.

        An error that ends the run has the record as its attribute ``record``.
        """
        try:
            loop, notes = self._prepared()
            record = Record(
                name=self.task.name,
                model=loop.model,
                config=self.config,
                environment=environment(),
                run_dir=None if self.directory is None else self.directory.path,
            )
            if self.directory is not None:
                self.directory.start(record.config, record.environment)
        except BaseException:
            if self.directory is not None:
                self.directory.abandon()
            raise
        start = time.perf_counter()
        try:
            self._emit(self._started(loop, notes))
            self._epochs(loop, record)
        except (Exception, KeyboardInterrupt) as error:
            self._broken_off(error, loop, record, time.perf_counter() - start)
            raise
        try:
            self._finish(loop, record, time.perf_counter() - start)
        except Exception as error:
            error.record = record  # type: ignore[attr-defined]
            raise
        return record

    def _prepared(self) -> tuple[Loop, list[str]]:
        """Return the loop, and what the user should know before it begins."""
        model = copy.deepcopy(self.task.model)
        notes = [
            note for one in self.regularizers if (note := one.prepare_model(model, seed=self.seed))
        ]
        model.to(self.device)
        optimizer, grouping = make_optimizer(self.maker, model)
        batches = training_batches(self.task.train, self.batch_size, self.device, self.seed)
        valid = self.task.valid
        loss = self.loss
        if isinstance(loss, nn.Module):  # the caller's own stays where it is
            loss = copy.deepcopy(loss).to(self.device)
        loop = Loop(
            model=model,
            optimizer=optimizer,
            loss=loss,
            batches=batches,
            valid=None if valid is None else evaluation_batches(valid, self.device, batches.size),
            metrics=self.task.metric_functions(),
            stopper=self._stopper(),
            emit=self._emit if self.listeners else None,
            look_every=1 if self.device.type == "cpu" else CHECK_EVERY,
        )
        return loop, notes + grouping

    def _stopper(self) -> EarlyStopping | None:
        stoppers: list[EarlyStopping] = [
            found for one in self.regularizers if (found := one.stopper()) is not None
        ]
        if not stoppers:
            return None
        if len(stoppers) > 1:
            raise ArgumentTypeError(
                "two regularisers stop the run",
                got=" and ".join(map(repr, stoppers)),
                do="leave one out",
            )
        measured = ["train/loss"]
        if self.task.valid is not None:
            measured += ["valid/loss", *(f"valid/{name}" for name in self.task.metric_functions())]
        if stoppers[0].metric not in measured:
            where = f"early_stopping on task {self.task.name!r}"
            raise unknown_name("metric", stoppers[0].metric, measured, where=where)
        return stoppers[0]

    def _epochs(self, loop: Loop, record: Record) -> None:
        for _ in range(self.epochs):
            row, stop = loop.run_epoch()
            record.history.append(row)
            if self.directory is not None:
                self.directory.add_row(row)
            self._emit(EpochDone(row))
            if stop:
                record.status = "stopped early"
                break

    def _broken_off(self, error: BaseException, loop: Loop, record: Record, seconds: float) -> None:
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
        else:
            record.status, record.message = "failed", f"{type(error).__name__}: {what}"
            if loop.step == 0:  # the choices do not fit each other: there is no run to be kept
                if self.directory is not None:
                    self.directory.abandon()
                return
        try:
            self._finish(loop, record, seconds)
        except Exception as another:
            error.add_note(f"and then: {type(another).__name__}: {another}")

    def _finish(self, loop: Loop, record: Record, seconds: float) -> None:
        """Settle model and numbers, write the files, tell the listeners."""
        try:
            self._settle(loop, record)
            self._state_facts(loop, record, seconds)
            if self.directory is not None:
                self.directory.finish(record)
        finally:
            self._emit(RunEnded(record))

    def _settle(self, loop: Loop, record: Record) -> None:
        """Put the weights in place that the run was for, and take their numbers."""
        model, stopper = loop.model, loop.stopper
        if record.status != "diverged":  # there they are in place already
            with loop.averaged():
                final = [tensor.detach().clone() for tensor in model.parameters()]
            with torch.no_grad():
                for weight, value in zip(model.parameters(), final, strict=True):
                    weight.copy_(value)
        row = record.history[-1] if record.history else {}
        best: dict[str, float] = {}
        if stopper is not None and stopper.restore_best and stopper.best_epoch is not None:
            stopper.restore(model)
            row = record.history[stopper.best_epoch - 1]
            best = {"best_epoch": stopper.best_epoch}
            kept = f"the weights of epoch {stopper.best_epoch} are kept"
            record.message = "; ".join(filter(None, [record.message, stopper.message, kept]))
        elif stopper is not None and record.status == "stopped early":
            record.message = stopper.message
        model.eval()
        for weight in model.parameters():
            weight.grad = None
        record.metrics = {name: value for name, value in row.items() if "/" in name} | best
        if self.task.test is not None and record.status in ("completed", "stopped early"):
            test = evaluation_batches(self.task.test, self.device, loop.batches.size)
            record.metrics |= evaluate(model, test, loop.loss, loop.metrics, part="test")

    def _state_facts(self, loop: Loop, record: Record, seconds: float) -> None:
        optimizer = loop.optimizer
        ours = isinstance(optimizer, Optimizer)
        record.facts = {
            "weights": sum(p.numel() for p in loop.model.parameters()),
            "optimizer": repr(optimizer) if ours else " ".join(str(optimizer).split()),
            "kernel": optimizer.explain() if ours else "torch",  # type: ignore[attr-defined]
            "train_samples": loop.batches.rows,
            "seconds": seconds,
            "steps": loop.step,
            "samples_per_second": loop.samples_per_second,
            **self.task.facts,
        }

    def _started(self, loop: Loop, notes: list[str]) -> RunStarted:
        optimizer = loop.optimizer
        return RunStarted(
            task=self.task.name,
            optimizer=self.config["optimizer"],
            loss=self.config["loss"],
            weights=sum(p.numel() for p in loop.model.parameters()),
            epochs=self.epochs,
            steps=self.epochs * (loop.batches.steps or 0),
            batch_size=loop.batches.size,
            kernel=optimizer.explain() if isinstance(optimizer, Optimizer) else "torch",
            notes=tuple(notes),
            run_dir=None if self.directory is None else str(self.directory.path),
        )

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def make_optimizer(maker: Maker, model: nn.Module) -> tuple[torch.optim.Optimizer, list[str]]:
    """Return the optimizer of a model, and what is to be said about its groups."""
    weights = list(model.parameters())
    if not any(weight.requires_grad for weight in weights):
        raise TaskError(
            "the model has no weights to train",
            got=f"{type(model).__name__}: {len(weights)} parameters, all frozen"
            if weights
            else f"{type(model).__name__} without parameters",
        )
    if not isinstance(maker, OptimizerChoice):
        optimizer = maker(weights)
        _check_foreign(optimizer, weights)
        return optimizer, []
    asked = {**maker.func.options, **maker.keywords}  # type: ignore[attr-defined]
    used = {name: asked[name] for name in DECAYING if asked[name]}
    if not used:
        return maker(weights), []
    groups = decay_groups(model, **used)
    sizes = [
        sum(p.numel() for group in groups if bool(group[name]) is acts for p in group["params"])
        for name in list(used)[:1]
        for acts in (True, False)
    ]
    if not sizes[1]:
        return maker(groups), []
    note = f"{', '.join(used)} on {sizes[0]} weights; {sizes[1]} biases and norm weights left out"
    return maker(groups), [note]


def _check_foreign(optimizer: object, weights: list[nn.Parameter]) -> None:
    """Refuse what a caller's function returned, if it cannot train these weights."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentTypeError(
            "the function did not return an optimizer",
            got=type(optimizer).__name__,
            expected="a torch.optim.Optimizer",
            do="write lambda params: torch.optim.Adam(params, lr=1e-3)",
        )
    known = {id(weight) for weight in weights}
    held = [weight for group in optimizer.param_groups for weight in group["params"]]
    if any(id(weight) not in known for weight in held):
        raise ArgumentTypeError(
            "the optimizer holds other weights than the run's",
            got="weights that the function was not called with",
            expected="those it is called with: a copy of the task's model is trained",
            do="write lambda params: torch.optim.Adam(params, lr=1e-3)",
        )
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ArgumentTypeError(
            "the optimizer evaluates the loss itself, which training does not offer",
            got=type(optimizer).__name__,
            expected="an optimizer whose step() takes no closure",
        )
