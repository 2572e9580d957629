"""`ravine.train`: a whole run from a task and a few choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.tasks.loading import TaskSource
from ravine.tasks.seeding import check_seed, seeded
from ravine.training.batches import BatchSize
from ravine.training.choices import settle
from ravine.training.devices import check_same, joined
from ravine.training.events import Listener
from ravine.training.hooks import Hooks, OnEnd, OnEpoch, OnStep
from ravine.training.keeper import Every, check_keep, interval
from ravine.training.listeners import files_of
from ravine.training.record import Record
from ravine.training.recovery import Nonfinite, check_policy
from ravine.training.resume import check_changes, saved_config, saved_task
from ravine.training.run import Run
from ravine.training.run_directory import RunDirectory
from ravine.training.threads import threads_for


def train(
    task: TaskSource | None = None,
    optimizer: Any = None,
    *,
    loss: Any = None,
    batch_size: BatchSize | None = None,
    epochs: int | None = None,
    regularize: Iterable[Any] | None = None,
    seed: int | None = None,
    device: str | torch.device = "auto",
    accumulate: int | None = None,
    precision: str | None = None,
    parallel: str | None = None,
    compile: bool | None = None,
    checkpoint_activations: bool | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    checkpoint_every: Every = "auto",
    keep_checkpoints: int = 2,
    nonfinite: Nonfinite | None = None,
    tensorboard: bool = False,
    watch: bool = True,
    listeners: Sequence[Listener] = (),
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    on_end: OnEnd | None = None,
) -> Record:
    """Train a task's model and return what came of it.

    Where an argument is None, the task decides; where it says nothing, Adam with lr 1e-3, 64 rows
    a step, 20 epochs and no regulariser. The task's ``scheduler``, if any, steps the optimizer.

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
        accumulate: passes for a step (1): each takes its part of the rows, and the gradient is that of
            the whole batch, exactly: a mean over tokens stays one where they are ignored.
        precision: "float32" (as weights and data are), "bfloat16" or "float16" (``torch.autocast``; the
            latter with a scale, whose steps that are not finite are left out and counted).
        parallel: with several processes (``torchrun``), "data" for a copy of the model in each
            (``DistributedDataParallel``) or "sharded" for a part (``fully_shard``). Every process
            takes its rows of the same batch: loss and gradient are those of one process.
            ``batch_size`` is that of all together. The first process writes and tells, but of sharded
            weights each writes its part, into a ``run_dir`` that all must see; hooks are called in all of
            them, and a stop in one ends all. Batch norm takes the statistics of a process's rows, and the
            running ones are those of the first.
        compile: ``torch.compile`` the model (False).
        checkpoint_activations: keep of each block of the model only its input for the backward pass,
            and compute the rest again (False).
        run_dir: a new folder for configuration, history, checkpoints, weights (safetensors) and
            report.html.
        resume: the run directory of a run that ended early, by whatever cause, instead of
            ``run_dir``. It goes on from its newest whole checkpoint to the same bits as if it had
            never ended; a damaged checkpoint is named and passed over. Without a checkpoint it
            begins at the start. Arguments that are left out are those of the run; of those given,
            ``epochs``, the lr of the optimizer, ``nonfinite``, ``accumulate``, ``parallel``,
            ``compile``, ``checkpoint_activations`` and the number of processes may be new. A
            built-in task need not be given again; a file of your own is run only if it is named. Other
            training or validation data is an error (`ravine.data.fingerprint` says what is seen).
        checkpoint_every: steps (100), a time ("30s", "5min", "1h"), "auto" (as often as costs less
            than 2 % of the time, after 10 s first), "never" or None. A checkpoint is also written at
            the end and after Ctrl-C.
        keep_checkpoints: how many of the last ones stay, >= 1. That of the best epoch (by the metric
            of early stopping, else the validation loss, else the training loss) stays in ``best``.
        nonfinite: what a loss, gradient or weight that is NaN or infinite does. "stop" (default): the
            run ends as it was before that step, which is found by repeating the steps since the last
            checkpoint (each 10 s or less costs nothing in between), and the error names the module or
            weight that was first. "skip": the step is left out, 10 in a row at most; every loss and
            gradient is looked at before its step, and batch norm's statistics come back. "rollback":
            the run goes back to the end of the last epoch (or to the last checkpoint by steps) with
            half the learning rate, 5 times at most (as in the log of OPT-175B, Zhang et al. 2022,
            section 2.5, by hand). With "stop" and "rollback" a finite loss that runs away counts too:
            a mean over an epoch above 1000 times that of the first, and rising, 3 epochs in a row.
        tensorboard: also write event files into the folder ``tensorboard`` of the run; a resumed run
            that has the folder goes on with it. For another folder see
            `ravine.training.tensorboard.TensorBoardListener`.
        watch: look at every 32nd step (and the first three) for what is wrong, at a few percent of the
            time or less (`ravine.watch`, docs/watching.md). What is found is a `FindingWarning` with its
            code, an event, and in the record's ``findings``. The bits of the run are the same without.
            Of several processes the first looks, at its rows and its part of the weights.
        listeners: called with the events of `ravine.training.events`.
        on_step: your own function, called as ``on_step(state)`` after every step, see
            `ravine.training.hooks.StepState`: step, epoch, loss, model, optimizer, inputs, targets.
        on_epoch: called as ``on_epoch(row, state)`` after every epoch and its validation, with the row
            of the history; ``state.log("valid/f1", value)`` adds to it.
        on_end: called as ``on_end(record)`` when all is written, however the run ended.

    Returns:
        A `Record`: ``.metrics``, ``.history``, ``.model``, ``.report(path)``. The task's own model is
        left as it was; the record's is a trained copy.

    Raises:
        NonFiniteError: something became NaN or infinite, or the loss ran away; see ``nonfinite``.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP (a closed terminal); the step under way was finished,
            and the state written.
        ResumeError: there is no run to resume, or something is given that must not change.
        CheckpointError: a checkpoint could not be written; those before it are untouched.
        RunDirectoryError: ``run_dir`` holds another run, is in use, or cannot be written.
        HookError: one of your functions raised an error; it says which, in which line and when.
        MissingPackageError: ``tensorboard`` without the package tensorboard.
        DistributedError: another process of the run ended.
        RavineError: an argument or the task cannot be used.

    ``state.stop("reason")`` in a hook ends the run there, with validation and files, as "stopped early".
    An error that ends a run under way, Ctrl-C included, has what was reached as its attribute
    ``record``, and the run directory holds it too. After a divergence the weights are those before
    the first bad step; with early stopping, those of the best epoch. Resume with another lr, or with
    ``nonfinite="skip"``, to go on from there.

    Example:
        >>> import ravine
        >>> record = ravine.train("wine", "sgd(lr=0.1)", epochs=5, regularize=())
        >>> record.status, len(record.history)
        ('completed', 5)
        >>> record.metrics["valid/accuracy"] > 0.9
        True
    """
    hooks = Hooks(on_step, on_epoch, on_end)
    written = files_of(resume if run_dir is None else run_dir, tensorboard=tensorboard)
    seed = None if seed is None else check_seed(seed)
    every, keep = interval(checkpoint_every), check_keep(keep_checkpoints)
    way = {
        "accumulate": accumulate,
        "precision": precision,
        "parallel": parallel,
        "compile": compile,
        "checkpoint_activations": checkpoint_activations,
    }
    if resume is not None and run_dir is not None and Path(run_dir) != Path(resume):
        raise ArgumentError(
            "a run that is resumed has its directory",
            got=f"resume={str(resume)!r} and run_dir={str(run_dir)!r}",
            do="leave run_dir out",
        )
    with joined(choose_device(device)) as team:
        saved = None if resume is None else team.led(lambda: saved_config(Path(str(resume))))
        if saved is not None:
            seed = check_seed(saved["seed"]) if seed is None else seed
            task = saved_task(saved, Path(str(resume))) if task is None else task
        if task is None:
            raise ArgumentTypeError(
                "there is nothing to train", expected="a task, or resume=RUN_DIR", got="neither"
            )
        seed = seed or 0
        where = choose_device(saved["device"] if saved is not None and device == "auto" else device)
        choices = settle(
            task, optimizer, loss, batch_size, epochs, regularize, seed, where, saved, way
        )
        before = "stop" if saved is None else saved.get("nonfinite", "stop")
        choices.config["nonfinite"] = check_policy(before if nonfinite is None else nonfinite)
        check_same(team, choices.config)
        new_lr = False
        if saved is not None:
            new_lr = check_changes(saved, choices.config, Path(str(resume)))
        hooks.team = team
        directories: list[RunDirectory] = []

        def open_directory() -> Path | None:
            if resume is not None:
                directories.append(RunDirectory.reopened(Path(resume)))
            elif run_dir is not None:
                directories.append(RunDirectory(Path(run_dir)))
            return directories[0].path.absolute() if directories else None

        path = team.led(open_directory)
        run = Run(
            choices=choices,
            directory=directories[0] if directories else None,
            path=path,
            listeners=[*listeners, *written] if team.leads else (),
            every=every,
            keep=keep,
            resumed=saved is not None,
            new_lr=new_lr,
            hooks=hooks,
            team=team,
            watch=watch,
        )
        with seeded(seed), threads_for(choices.task, choices.batch_size, where):
            return run.execute()


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device that is meant, or raise ArgumentError."""
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
