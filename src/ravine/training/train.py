"""`ravine.train`: a whole run from a task and a few choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ravine.errors import ArgumentError
from ravine.tasks import Task, load_task
from ravine.tasks.loading import TaskSource
from ravine.tasks.seeding import check_seed, seeded
from ravine.training.batches import BatchSize, check_batch_size
from ravine.training.catalog import (
    choose_loss,
    choose_optimizer,
    choose_regularizers,
    merged,
)
from ravine.training.events import Listener
from ravine.training.record import Record
from ravine.training.run import Run
from ravine.training.run_directory import RunDirectory
from ravine.training.threads import threads_for

OPTIMIZER, BATCH_SIZE, EPOCHS = "adam(lr=1e-3)", 64, 20
"""What is taken where neither the caller nor the task says anything."""


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
            smaller last batch of an epoch is trained on as well. A DataLoader has its own.
        epochs: passes over the training data, >= 0.
        regularize: expressions or objects: ``["dropout(0.1)", "early_stopping(patience=5)"]``; ``()``
            or ``"none"`` for no regulariser, also where the task suggests some.
        seed: decides initial weights (of a task that is made here), order of the data, dropout.
            The same seed gives the same bits on the same machine. Small steps on tensors run on
            one thread (`ravine.training.threads`).
        device: "auto" (a CUDA GPU if there is one, else the CPU) or a torch device.
        run_dir: a new folder for configuration, history, weights (safetensors) and report.html.
        listeners: called with the events of `ravine.training.events`.

    Returns:
        A `Record`: ``.metrics``, ``.history``, ``.model``, ``.report(path)``. The task's own model is
        left as it was; the record's is a trained copy.

    Raises:
        NonFiniteError: the loss or the weights became NaN or infinite.
        RunDirectoryError: ``run_dir`` holds another run or cannot be written.
        RavineError: an argument or the task cannot be used.

    An error that ends a run under way, Ctrl-C included, has what was reached as its attribute
    ``record``, and the run directory holds it too. After a divergence the weights are those of the
    end of the last epoch (a copy is kept), which are finite; with early stopping, those of the best.

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
    with seeded(seed), threads_for(run.task, run.batch_size, run.device):
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
) -> Run:
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
    maker, optimizer_text = choose_optimizer(
        optimizer if optimizer is not None else defaults.get("optimizer", OPTIMIZER),
        merged(one.optimizer_options() for one in regularizers),
    )
    loss_function, loss_text = choose_loss(
        task.loss, merged(one.loss_options() for one in regularizers)
    )
    size = _batch_size(task, batch_size)
    count = epochs if epochs is not None else defaults.get("epochs", EPOCHS)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ArgumentError("epochs cannot be used", got=repr(count), expected="an integer >= 0")
    config = {
        "task": source if isinstance(source, str) else task.name,
        "optimizer": optimizer_text,
        "loss": loss_text,
        "batch_size": task.train.batch_size if isinstance(task.train, DataLoader) else size,
        "epochs": count,
        "regularize": [repr(one) for one in regularizers],
        "seed": seed,
        "device": str(where),
    }
    directory = None if run_dir is None else RunDirectory(Path(run_dir))
    return Run(
        task=task,
        maker=maker,
        loss=loss_function,
        batch_size=size,
        epochs=count,
        regularizers=regularizers,
        seed=seed,
        device=where,
        directory=directory,
        listeners=listeners,
        config=config,
    )


def _batch_size(task: Task, given: BatchSize | None) -> BatchSize:
    if given is None:
        return check_batch_size(task.defaults.get("batch_size", BATCH_SIZE))
    if isinstance(task.train, DataLoader):
        raise ArgumentError(
            "the batch size is given twice",
            where=f"train of task {task.name!r}",
            got=f"batch_size={given!r}, and a DataLoader, which has its own",
            do="leave batch_size out, or give the task the Dataset",
        )
    return check_batch_size(given)


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = '"auto", "cpu", or a device that this PyTorch has'
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise ArgumentError(
            "the device cannot be used",
            got=f"{device!r}: {str(error).splitlines()[0]}",
            expected=expected,
        ) from error
    if found.type == "meta":
        raise ArgumentError(
            "the device cannot be used",
            got="'meta', which holds no numbers",
            expected=expected,
        )
    return found
