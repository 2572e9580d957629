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
from ravine.training.run_directory import CONFIG

MAY_CHANGE = ("epochs", "lr", *WAYS)


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
    except FileNotFoundError as error:
        raise ResumeError(
            "there is no run to resume",
            where=str(run_dir),
            got="a folder without config.json" if run_dir.is_dir() else "no such folder",
            expected="the run directory of a run that began",
            do="name that directory, or start the run anew with run_dir",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            "the configuration of the run cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            expected="what the run wrote when it began",
        ) from error
    return config


def saved_task(saved: Mapping[str, Any], run_dir: Path) -> str:
    """Return the built-in name or the file of a run's task.

    Raises:
        ResumeError: it was an object, or a file inside of the run directory, which could be a
            stranger's: such a file is run only if the user names it.
    """
    source = str(saved["task"])
    if source in TASKS:
        return source
    path = Path(source)
    if path.suffix not in (".py", ".txt"):
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
            choice = parse(str(text), {**SCHEDULES, **OPTIMIZERS}, kind="optimizer")
        except RavineError:
            return False
        if not isinstance(choice, OptimizerChoice):
            return False
        rest = {name: repr(value) for name, value in choice.keywords.items() if name != "lr"}
        choices.append((choice.func, rest))
    return choices[0] == choices[1]
