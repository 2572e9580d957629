"""The program of a run directory: the same task with the choices that the run was made with."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ravine.errors import RavineError, ResumeError, RunDirectoryError
from ravine.tasks import Task
from ravine.tasks.loading import TASKS, TaskSource, is_path
from ravine.training.choices import settle
from ravine.training.config.expressions import check_expression
from ravine.training.resume import saved_config, saved_task
from ravine.training.run_directory import CONFIG, RECORD

__all__ = ["RunProgram", "run_directory", "run_program"]

CHOICES = ("optimizer", "loss", "batch_size", "epochs", "regularize")

# What training can do in another way, and a replay does not: (key, value that is a replay's, words).
_PLAIN = (
    ("device", "cpu", "on {}"),
    ("precision", "float32", "in {}"),
    ("accumulate", 1, "in {} passes for a step"),
    ("compile", False, "compiled"),
    ("nonfinite", "stop", "with nonfinite={}"),
)


@dataclass(frozen=True)
class RunProgram:
    """What a run directory says that is to be run again.

    Attributes:
        source: makes the run's task with the run's choices in it: a function of a seed, or a Task
            where it was given as one.
        seed: of the run.
        task: how the task is named on the command line.
        config: what the run was started with.
        reached: what the run's record says that it reached, by name; empty where it did not end.
        notes: in what the replays differ from the run, as sentences.
    """

    source: TaskSource
    seed: int
    task: str
    config: dict[str, Any]
    reached: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The choices of the run that a configuration can say; the task says the others."""
        return {key: self.config[key] for key in CHOICES if _sayable(key, self.config[key])}


def _sayable(key: str, value: Any) -> bool:
    if key in ("batch_size", "epochs"):
        return isinstance(value, int | str)  # a DataLoader without a batch size has None
    try:
        for one in value if isinstance(value, list) else [value]:
            check_expression(key, one, "")
    except RavineError:
        return False
    return True


def run_directory(source: object) -> Path | None:
    """Return the run directory that is meant by the place of a task, or None.

    A folder is one, and so is a path that is not there and cannot be a task's. A built-in name is
    a task also where there is a folder of that name: that is "./digits".
    """
    if not isinstance(source, str | os.PathLike) or source in TASKS:
        return None
    path = Path(source)
    named = path.suffix in (".py", ".txt") or (isinstance(source, str) and not is_path(source))
    return path if path.is_dir() or not (named or path.exists()) else None


def run_program(run_dir: Path, task: TaskSource | None = None) -> RunProgram:
    """Read a run directory; nothing is written into it.

    Args:
        run_dir: of a run that began; how it ended does not matter.
        task: the task, where the directory cannot say it: one that was made in Python, or a Python
            file, which is run only if it is named.

    Raises:
        RunDirectoryError: there is no run, or what it wrote is damaged, or its task is not there.
    """
    try:
        saved = saved_config(run_dir)
        named = task if task is not None else saved_task(saved, run_dir)
    except ResumeError as error:
        raise _told(error, run_dir) from error
    reached = _reached(run_dir)

    def source(seed: int) -> Task:
        made = settle(named, None, None, None, None, None, seed, torch.device("cpu"), saved)
        return dataclasses.replace(
            made.task,
            optimizer=made.maker,
            batch_size=made.batch_size,
            epochs=made.epochs,
            regularize=tuple(made.regularizers),
        )

    return RunProgram(
        source=source(int(saved["seed"])) if isinstance(named, Task) else source,
        seed=int(saved["seed"]),
        task=str(named) if isinstance(named, str | os.PathLike) else str(saved["task"]),
        config=saved,
        reached=reached,
        notes=_notes(saved),
    )


def _told(error: ResumeError, run_dir: Path) -> RunDirectoryError:
    """Return the error of a run that cannot go on as that of one that cannot be diagnosed."""
    words = str(error).splitlines()
    given = {
        key: text.strip()
        for line in words[1:]
        for key, colon, text in [line.strip().partition(":")]
        if colon
    }
    do = {
        "there is no run to resume": "name the directory of a run, or a task",
        "the task of the run has to be given again": "name the task beside its run: "
        f"ravine diagnose TASK --run-dir {run_dir}, or ravine.diagnose(task, run_dir={str(run_dir)!r})",
    }.get(error.what, f"mend {CONFIG}, or diagnose the task: ravine diagnose TASK")
    what = {
        "there is no run to resume": "there is no run to diagnose",
        "the task of the run has to be given again": "the task of the run cannot be made again",
    }.get(error.what, error.what)
    return RunDirectoryError(
        what,
        where=given.get("where", str(run_dir)),
        got=given.get("got", ""),
        expected=given.get("expected", ""),
        do=do,
    )


def _reached(run_dir: Path) -> dict[str, Any]:
    """Return status and last values of the run's record; empty for a run that has not ended."""
    path = run_dir / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        metrics = record["metrics"]
        if not isinstance(metrics, Mapping):
            raise ValueError("its metrics are no object")
        return {"status": str(record["status"]), **metrics}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunDirectoryError(
            "the record of the run cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            expected="what the run wrote when it ended",
            do=f"take {RECORD} away: {CONFIG} is enough to run it again",
        ) from error


def _notes(saved: Mapping[str, Any]) -> tuple[str, ...]:
    other = [
        words.format(saved[key]) for key, plain, words in _PLAIN if saved.get(key, plain) != plain
    ]
    if not other:
        return ()
    return (
        f"the run was made {', '.join(other)}; the replays are made on the cpu in the task's own "
        "types, in one pass a step",
    )
