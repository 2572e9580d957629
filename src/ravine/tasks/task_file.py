"""Read a user's Python file that defines ``def task(seed)``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ravine.errors import TaskError, nearest

EXAMPLE = """write a function of a seed that returns a Task:
def task(seed):
    return ravine.Task(model=..., loss="mse", train=(X, y))"""


def read_task_file(path: Path) -> Callable[[int], Any]:
    """Run a file and return its function ``task``, with the file's folder on the import path.

    Raises:
        TaskError: the file is missing, cannot be read or parsed, fails while it runs, or defines
            no function ``task``; the message gives the line.
    """
    module = _run(path, _compiled(path))
    made = getattr(module, "task", None)
    if made is None:
        names = [name for name, value in vars(module).items() if callable(value)]
        raise TaskError(
            "the file defines no function 'task'",
            where=str(path),
            got="it defines " + (", ".join(names) or "no function"),
            do=" ".join(filter(None, [nearest("task", names), EXAMPLE])),
        )
    if not callable(made):
        raise TaskError(
            "'task' in the file is not a function",
            where=str(path),
            got=type(made).__name__,
            do=EXAMPLE,
        )
    function: Callable[[int], Any] = made
    return function


@contextmanager
def folder_importable(path: Path) -> Iterator[None]:
    """Let the file import its neighbours, as it could if Python ran it."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def line_in(error: BaseException, path: Path) -> str:
    """Return where in the file an error arose: the innermost of its lines on the traceback."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    if not frames:
        return str(path)
    place = f"{path}, line {frames[-1].lineno}, in {frames[-1].name}"
    return f"{place}\n{frames[-1].line}" if frames[-1].line else place


def _compiled(path: Path) -> Any:
    try:
        source = path.read_bytes()
    except FileNotFoundError as error:
        neighbours = [file.name for file in path.parent.glob("*.py")]
        hint = nearest(path.name, neighbours)
        raise TaskError(
            "there is no such task file",
            where=str(path),
            expected="the path of a .py file that defines def task(seed)",
            do=hint or "look at the path; it is taken from the folder in which Python runs",
        ) from error
    except OSError as error:
        raise TaskError(
            "the task file cannot be read",
            where=str(path),
            got=str(error.strerror),
            do="name a file, and look at its permissions",
        ) from error
    try:
        return compile(source, str(path), "exec")
    except SyntaxError as error:
        shown = (error.text or "").rstrip("\n")
        caret = " " * max((error.offset or 1) - 1, 0) + "^"
        raise TaskError(
            "the task file is not valid Python",
            where=f"{path}, line {error.lineno}",
            got=f"{error.msg}\n{shown}\n{caret}" if shown else str(error.msg),
            do="mend that line",
        ) from error
    except ValueError as error:  # null bytes, or bytes that are not text
        raise TaskError(
            "the task file is not a Python source file",
            where=str(path),
            got=str(error),
            do="name the .py file that defines def task(seed)",
        ) from error


def _run(path: Path, code: Any) -> ModuleType:
    # Compiled here and not by importlib: no __pycache__ appears beside the user's file, and an
    # edit within the clock's resolution is seen. In sys.modules, since dataclasses look there.
    name = f"ravine_task_file_{path.stem}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        with folder_importable(path):
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise TaskError(
            "the task file failed while it ran",
            where=line_in(error, path),
            got=f"{type(error).__name__}: {error}",
            do="mend that line; what should not run on loading goes into def task(seed)",
        ) from error
    return module
