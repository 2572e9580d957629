"""`ravine.train`: a whole run from a task and a few choices."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ravine.errors import ArgumentError, NonFiniteError
from ravine.optim import Optimizer
from ravine.regularize import decay_groups
from ravine.tasks import Task, load_task
from ravine.tasks.loading import TaskSource
from ravine.tasks.seeding import check_seed, seeded
from ravine.training.batches import (
    BatchSize,
    LoaderBatches,
    TensorBatches,
    check_batch_size,
    training_batches,
)
from ravine.training.catalog import (
    Maker,
    OptimizerChoice,
    choose_loss,
    choose_optimizer,
    choose_regularizers,
)
from ravine.training.environment import environment
from ravine.training.evaluation import evaluate
from ravine.training.events import EpochDone, Event, Listener, RunEnded, RunStarted
from ravine.training.loop import Loop
from ravine.training.record import Record
from ravine.training.run_directory import RunDirectory

OPTIMIZER, BATCH_SIZE, EPOCHS = "adam(lr=1e-3)", 64, 20
"""What is taken where neither the caller nor the task says anything."""

DECAYING = ("weight_decay", "l1", "l2")


def train(
    task: TaskSource,
    optimizer: Any = None,
    *,
    loss: Any = None,
    batch_size: BatchSize | None = None,
    epochs: int | None = None,
    regularize: Iterable[Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    run_dir: str | Path | None = None,
    listeners: Sequence[Listener] = (),
) -> Record:
    """Train a task's model and return what came of it.

    Where an argument is None, the task's own ``defaults`` decide; where it has none, Adam with
    lr 1e-3, 64 rows a step, 20 epochs and no regulariser.

    Args:
        task: a `ravine.Task`, a function of a seed that returns one, a built-in name ("digits") or
            the path of a file that defines ``def task(seed)``.
        optimizer: an expression (``"adam(lr=1e-3, clip_norm=1)"``), a class of `ravine.optim`, a
            ``functools.partial`` of one, or any function of the weights that returns a torch
            optimizer. With an expression or a class of ours, biases and norm parameters are left
            out of weight_decay, l1 and l2.
        loss: an expression (``"huber(delta=2)"``) or a callable of (output, target).
        batch_size: rows a step; ``"all"`` is batch gradient descent, 1 stochastic, n mini-batch. A
            smaller last batch of an epoch is trained on as well.
        epochs: passes over the training data, >= 0.
        regularize: expressions or objects: ``["dropout(0.1)", "early_stopping(patience=5)"]``.
        seed: decides initial weights (of a task that is made here), order of the data, dropout.
            The same seed gives the same bits on the same machine.
        device: "auto" (a CUDA GPU if there is one, else the CPU) or a torch device.
        run_dir: a new folder for configuration, history, weights (safetensors) and report.html.
        listeners: called with the events of `ravine.training.events`.

    Returns:
        A `Record`: ``.metrics``, ``.history``, ``.model``, ``.report(path)``. The task's own model is
        left as it was; the record's is a trained copy.

    Raises:
        NonFiniteError: the loss became NaN or infinite; its ``record`` holds what was reached.
        RavineError: an argument or the task cannot be used.

    Example:
        >>> import ravine
        >>> record = ravine.train("wine", "sgd(lr=0.1)", epochs=5, regularize=())
        >>> record.status, len(record.history)
        ('completed', 5)
        >>> record.metrics["valid/accuracy"] > 0.9
        True
    """
    run = _resolve(
        task, optimizer, loss, batch_size, epochs, regularize, seed, device, run_dir, listeners
    )
    with seeded(seed):
        return run.execute()


def _resolve(
    source: TaskSource,
    optimizer: Any,
    loss: Any,
    batch_size: BatchSize | None,
    epochs: int | None,
    regularize: Iterable[Any] | None,
    seed: int,
    device: str | torch.device,
    run_dir: str | Path | None,
    listeners: Sequence[Listener],
) -> _Run:
    """Settle every choice before anything is computed or written."""
    seed = check_seed(seed)
    where = _device(device)
    task = load_task(source, seed)
    defaults = task.defaults
    if loss is not None:
        task = task.with_loss(loss)
    if regularize is None:
        regularize = defaults.get("regularize", ())
    regularizers = choose_regularizers(regularize)
    options: dict[str, Any] = {}
    loss_options: dict[str, Any] = {}
    for one in regularizers:
        options |= one.optimizer_options()
        loss_options |= one.loss_options()
    maker, optimizer_text = choose_optimizer(
        optimizer if optimizer is not None else defaults.get("optimizer", OPTIMIZER), options
    )
    loss_function, loss_text = choose_loss(task.loss, loss_options)
    size = check_batch_size(
        batch_size if batch_size is not None else defaults.get("batch_size", BATCH_SIZE)
    )
    count = epochs if epochs is not None else defaults.get("epochs", EPOCHS)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ArgumentError("epochs cannot be used", got=repr(count), expected="an integer >= 0")
    config = {
        "task": source if isinstance(source, str) else task.name,
        "optimizer": optimizer_text,
        "loss": loss_text,
        "batch_size": size,
        "epochs": count,
        "regularize": [repr(one) for one in regularizers],
        "seed": seed,
        "device": str(where),
    }
    directory = None if run_dir is None else RunDirectory(Path(run_dir))
    return _Run(
        task, maker, loss_function, size, count, regularizers, seed, where, directory, listeners, config
    )


@dataclass
class _Run:
    """A run whose every choice is settled."""

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
        """Train, and leave the record in whatever way the run ends."""
        model = copy.deepcopy(self.task.model)
        notes = [note for one in self.regularizers if (note := one.prepare_model(model, seed=self.seed))]
        model.to(self.device)
        optimizer, grouping = _optimizer(self.maker, model)
        notes += grouping
        batches = training_batches(self.task.train, self.batch_size, self.device, self.seed)
        stoppers = [s for one in self.regularizers if (s := one.stopper()) is not None]
        loop = Loop(
            model=model,
            optimizer=optimizer,
            loss=self.loss.to(self.device) if isinstance(self.loss, nn.Module) else self.loss,
            batches=batches,
            device=self.device,
            valid=self.task.valid,
            metrics=self.task.metric_functions(),
            stopper=stoppers[0] if stoppers else None,
            emit=self._emit,
        )
        record = Record(
            name=self.task.name,
            model=model,
            config=self.config,
            environment=environment(),
            run_dir=None if self.directory is None else self.directory.path,
        )
        if self.directory is not None:
            self.directory.start(record.config, record.environment)
        self._emit(self._started(optimizer, model, batches, notes))
        start = time.perf_counter()
        try:
            self._epochs(loop, record)
        except NonFiniteError as error:
            record.status, record.message = "diverged", str(error)
            error.record = record  # type: ignore[attr-defined]
            raise
        except KeyboardInterrupt:
            record.status, record.message = "interrupted", f"in epoch {loop.epoch + 1}"
            raise
        finally:
            self._finish(loop, record, batches, time.perf_counter() - start)
        return record

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

    def _finish(
        self, loop: Loop, record: Record, batches: TensorBatches | LoaderBatches, seconds: float
    ) -> None:
        """Settle model and numbers, write the files, tell the listeners."""
        model, optimizer = loop.model, loop.optimizer
        with loop.averaged():  # the average, where one is kept, is what the run was for
            final = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(final)
        model.eval()
        row = record.history[-1] if record.history else {}
        numbers = {name: value for name, value in row.items() if "/" in name}
        stopper = loop.stopper
        if stopper is not None and stopper.best_epoch is not None and record.status != "diverged":
            stopper.restore(model)
            row = record.history[stopper.best_epoch - 1]
            numbers = {name: value for name, value in row.items() if "/" in name}
            numbers["best_epoch"] = stopper.best_epoch
            record.message = record.message or f"weights of epoch {stopper.best_epoch}: {stopper!r}"
        if self.task.test is not None and record.status != "diverged":
            numbers |= evaluate(
                model, self.task.test, loop.loss, loop.metrics, part="test", device=self.device
            )
        record.metrics = numbers
        explained = optimizer.explain() if isinstance(optimizer, Optimizer) else "torch"
        record.facts = {
            "weights": sum(p.numel() for p in model.parameters()),
            "optimizer": repr(optimizer) if isinstance(optimizer, Optimizer) else str(optimizer),
            "kernel": explained,
            "train_samples": batches.rows,
            "seconds": seconds,
            "steps": loop.step,
            "samples_per_second": loop.samples_per_second,
            **self.task.facts,
        }
        if self.directory is not None:
            self.directory.finish(record)
        self._emit(RunEnded(record))

    def _started(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        batches: TensorBatches | LoaderBatches,
        notes: list[str],
    ) -> RunStarted:
        return RunStarted(
            task=self.task.name,
            optimizer=self.config["optimizer"],
            loss=self.config["loss"],
            weights=sum(p.numel() for p in model.parameters()),
            epochs=self.epochs,
            steps=self.epochs * (batches.steps or 0),
            batch_size=batches.size,
            kernel=optimizer.explain() if isinstance(optimizer, Optimizer) else "torch",
            notes=tuple(notes),
            run_dir=None if self.directory is None else str(self.directory.path),
        )

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def _optimizer(maker: Maker, model: nn.Module) -> tuple[torch.optim.Optimizer, list[str]]:
    """Return the optimizer of a model, and what is to be said about its groups."""
    weights: Callable[[], Any] = model.parameters
    if not isinstance(maker, OptimizerChoice):
        return maker(weights()), []
    asked = {**maker.func.options, **maker.keywords}  # type: ignore[attr-defined]
    used = [name for name in DECAYING if asked[name]]
    if not used:
        return maker(weights()), []
    groups = decay_groups(model)
    if len(groups) == 1:
        return maker(groups), []
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    note = f"{', '.join(used)} on {sizes[0]} weights; {sizes[1]} biases and norm weights left out"
    return maker(groups), [note]


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(
            "the device cannot be used",
            got=f"{device!r}: {str(error).splitlines()[0]}",
            expected='"auto", "cpu", or a device that this PyTorch has',
        ) from error
