"""From what a caller names to a Task: the registry, and ``load_task``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeAlias

from torch import nn

from ravine.errors import TaskError, UnknownNameError, nearest
from ravine.tasks.breast_cancer import breast_cancer
from ravine.tasks.diabetes import diabetes
from ravine.tasks.digits import digits
from ravine.tasks.digits_cnn import digits_cnn
from ravine.tasks.seeding import check_seed, seeded
from ravine.tasks.task import Task
from ravine.tasks.task_file import EXAMPLE, folder_importable, line_in, read_task_file
from ravine.tasks.text import text
from ravine.tasks.text_file import text_file
from ravine.tasks.wine import wine

TaskSource: TypeAlias = Task | str | os.PathLike[str] | Callable[[int], Task]

TASKS: dict[str, Callable[[int], Task]] = {
    "digits": digits,
    "digits-cnn": digits_cnn,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "wine": wine,
    "text": text,
}
"""The built-in tasks: functions of a seed."""


def load_task(source: TaskSource, seed: int = 0) -> Task:
    """Return the task that is meant by a Task, a function, a built-in name or a file.

    Args:
        source: a ``Task``, returned as it is; a function of a seed that returns one; a name of
            ``TASKS``; the path of a .py file that defines ``def task(seed)`` (text that ends
            in ``.py`` or holds a path separator); or the path of a .txt file, for a character
            model of it (`text_file`).
        seed: an int in [0, 2**32 - 1]. A function also runs with the global generators of torch,
            NumPy and Python seeded by it, so that a model built without a thought of seeds is
            the same each time; the caller's generators are left as they were.

    Raises:
        UnknownNameError: no built-in task has that name.
        TaskError: the file or function cannot be used; the message says where and what to do.
        ArgumentError, ArgumentTypeError: the seed is out of range or not an integer.

    >>> load_task("wine", seed=1).name
    'wine'
    """
    seed = check_seed(seed)
    if isinstance(source, Task):
        return source
    if isinstance(source, str) and not is_path(source):
        return _named(source)(seed)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix == ".txt":
            return text_file(path, seed)
        with seeded(seed):
            function = read_task_file(path)
        return _call(function, seed, path)
    if isinstance(source, nn.Module) or not callable(source):
        raise TaskError(
            "this is no task",
            got=type(source).__name__,
            expected="a Task, a function of a seed, a built-in name or the path of a .py file",
            do="wrap model, loss and data: ravine.Task(model=..., loss=..., train=(X, y))",
        )
    return _call(source, seed, None)


def is_path(source: str) -> bool:
    """Tell whether a text names a file; otherwise it is the name of a built-in task."""
    return source.endswith((".py", ".txt")) or "/" in source or os.sep in source


def _named(name: str) -> Callable[[int], Task]:
    if name in TASKS:
        return TASKS[name]
    hint = nearest(name, TASKS)
    if Path(f"{name}.py").is_file():
        hint = f"for the file in this folder write '{name}.py'"
    raise UnknownNameError(
        f"unknown task {name!r}",
        expected="one of " + ", ".join(TASKS) + "; or the path of a .py file",
        do=hint,
    )


def _call(function: Callable[[int], object], seed: int, path: Path | None) -> Task:
    where = f"task in {path}" if path else getattr(function, "__qualname__", repr(function))
    _check_takes_seed(function, seed, where)
    try:
        with seeded(seed), folder_importable(path) if path else nullcontext():
            made = function(seed)
    except Exception as error:
        raise TaskError(
            "the task function failed",
            where=line_in(error, path) if path else where,
            got=f"{type(error).__name__}: {error}",
            do="mend that line; its traceback is above",
        ) from error
    if isinstance(made, Task):
        return made
    raise TaskError(
        "the task function did not return a Task",
        where=where,
        got="nothing: is a return missing?" if made is None else type(made).__name__,
        expected="a ravine.Task",
        do=EXAMPLE,
    )


def _check_takes_seed(function: Callable[[int], object], seed: int, where: str) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some callables written in C have no signature: calling them will tell
        return
    try:
        signature.bind(seed)
    except TypeError as error:
        raise TaskError(
            "the task function does not take a seed",
            where=where,
            got=f"{getattr(function, '__name__', 'function')}{signature}",
            expected="one positional argument, the seed",
            do=EXAMPLE,
        ) from error
