"""What a run that goes on was started with, and what of it may change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ravine.errors import RavineError, ResumeError
from ravine.expression import parse
from ravine.schedules import SCHEDULES
from ravine.tasks.loading import TASKS
from ravine.training.catalog import OPTIMIZERS, OptimizerChoice
from ravine.training.devices import MAY_CHANGE as WAYS
from ravine.training.loop import Loop
from ravine.training.run_directory import CONFIG, RunDirectory
from ravine.training.same_data import check_data

MAY_CHANGE = ("epochs", "lr", "nonfinite", *WAYS)

DECIDING = ("torch", "llvmlite", "numba", "triton", "cpu", "threads", "gpu")
"""What of the surroundings decides the bits of a run. Numba has compiled kernels of earlier versions."""

WRITTEN: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "optimizer": str,
    "loss": str,
    "batch_size": (int, str, type(None)),
    "epochs": int,
    "regularize": list,
    "seed": int,
    "device": str,
}
"""What every configuration has, and of which type."""


def saved_config(run_dir: Path) -> dict[str, Any]:
    """Return what the run in a directory was started with.

    Raises:
        ResumeError: there is no run in the directory, or its configuration is damaged.
    """
    path = run_dir / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        if not isinstance(config, dict):
            raise ValueError("its config is no object")
        for name, kinds in WRITTEN.items():
            if not isinstance(config[name], kinds):
                raise ValueError(f"{name} is {config[name]!r}")
    except FileNotFoundError as error:
        raise ResumeError(
            "there is no run to resume",
            where=str(run_dir),
            got="a folder without config.json" if run_dir.is_dir() else "no such folder",
            expected="the run directory of a run that began",
            do="name that directory, or start the run anew with run_dir",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResumeError(
            "the configuration of the run cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            expected="what the run wrote when it began",
        ) from error
    return config


def saved_task(saved: Mapping[str, Any], run_dir: Path) -> str:
    """Return the built-in name of a run's task, or the file of a text.

    Raises:
        ResumeError: it was an object, or a Python file. The directory could be a stranger's, and
            name whatever file: one that is run is run only if the user names it.
    """
    source = str(saved["task"])
    if source in TASKS:
        return source
    path = Path(source)
    if path.suffix == ".py":
        problem = "a file, which is run only if you name it"
    elif path.suffix != ".txt":
        problem = "it was made in Python"
    elif path.resolve().is_relative_to(run_dir.resolve()):
        problem = "its file is inside of the run directory"
    elif not path.is_file():
        problem = "its file is not there"
    else:
        return source
    raise ResumeError(
        "the task of the run has to be given again",
        where=str(run_dir),
        got=f"{source!r}: {problem}",
        do="name the task beside resume",
    )


def unchanged(
    directory: RunDirectory | None, environment: Mapping[str, Any], data: Mapping[str, Any]
) -> list[str]:
    """Compare surroundings and data with those of when the run began; return notes.

    Raises:
        ResumeError: the data is another; both are shown.
    """
    assert directory is not None  # of the first process, which alone looks
    try:
        read = json.loads((directory.path / CONFIG).read_text(encoding="utf-8"))
        before = dict(read["environment"])
    except (OSError, ValueError, KeyError, TypeError):
        read, before = {}, {}
    notes = [
        f"{name} is {environment.get(name, 'not used')}, and was {before[name]}: the bits may be others than "
        "of a run that was not broken off"
        for name in DECIDING
        if name in before and before[name] != environment.get(name)
    ]
    saved = read.get("data")
    return notes + check_data(saved, data, directory.path, same_surroundings=not notes)


def where_it_goes_on(loop: Loop) -> str:
    """Return a note on where a run goes on from its newest checkpoint, or why it does not."""
    if loop.stopper is not None and loop.stopper.stopped:
        return (
            f"nothing is trained: the run had stopped early after epoch {loop.epoch}, since "
            f"{loop.stopper.message}; a new run with more patience may go further"
        )
    if loop.epoch >= loop.epochs:
        return (
            f"nothing is trained: {loop.epoch} epochs are done and {loop.epochs} asked for; "
            "a larger epochs (--epochs) goes on"
        )
    return f"resumed at step {loop.step}, epoch {loop.epoch + 1}"


def check_changes(saved: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> bool:
    """Compare the configurations; return whether the learning rate is a new one.

    Raises:
        ResumeError: something differs that must not change; both values are shown.
    """
    new_lr = False
    for name in sorted({*saved, *now}):
        before, after = saved.get(name), now.get(name)
        if before == after or name in MAY_CHANGE:
            continue
        if name == "optimizer" and _same_but_lr(before, after):
            new_lr = True
            continue
        raise ResumeError(
            f"{name} differs from what the run was started with",
            where=str(run_dir),
            got=str(after),
            expected=str(before),
            do=f"leave {name} out, or start a new run; what may change is " + ", ".join(MAY_CHANGE),
        )
    return new_lr


def _same_but_lr(before: Any, after: Any) -> bool:
    choices = []
    for text in (before, after):
        try:
            choice = parse(str(text), OPTIMIZERS, kind="optimizer", inside=SCHEDULES)
        except RavineError:
            return False
        if not isinstance(choice, OptimizerChoice):
            return False
        rest = {name: repr(value) for name, value in choice.keywords.items() if name != "lr"}
        choices.append((choice.func, rest))
    return choices[0] == choices[1]
