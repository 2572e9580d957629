"""The resolved configuration: every argument of a run with its value, as a file that can be fed back."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from ravine.errors import ArgumentTypeError, RavineError
from ravine.tasks.loading import is_path
from ravine.training.choices import Choices, settle
from ravine.training.config.configuration import Configuration
from ravine.training.config.expressions import check_expression
from ravine.training.config.file import problem_of_path
from ravine.training.config.toml import to_comment, to_toml
from ravine.training.resume import saved_config, saved_task
from ravine.training.train import choose_device

__all__ = ["Line", "resolve", "to_text"]


@dataclass(frozen=True)
class Line:
    """An argument of training as it will be.

    Attributes:
        name: of the argument.
        value: what it will be.
        source: who said so: a file, the command line, the task, a default.
        only_here: why a file cannot say it; "" if it can.
    """

    name: str
    value: Any
    source: str
    only_here: str = ""


def resolve(configuration: Configuration) -> list[Line]:
    """Settle every choice as training would, without training or writing anything.

    Raises:
        RavineError: as `ravine.train` would, before its first step.
    """
    choices = _settled(configuration)
    lines = []
    for name, option in configuration.options.items():
        if name in configuration.settings:
            setting = configuration.settings[name]
            line = Line(name, setting.value, setting.source)
        elif option.default is not None:
            line = Line(name, option.default, "default")
        elif choices.config.get(name) is not None:
            line = Line(name, choices.config[name], _origin(name, choices))
        else:
            continue
        lines.append(_with_limits(line, option.path, choices))
    return lines


def to_text(lines: list[Line]) -> str:
    """Write the lines as TOML; what a file cannot say is there as a comment.

    >>> print(to_text([Line("epochs", 3, "run.toml"), Line("run_dir", "/x", "", "it is absolute")]))
    epochs = 3  # run.toml
    # run_dir = "/x"  # not for a file: it is absolute
    """
    texts = []
    for line in lines:
        value = str(line.value) if isinstance(line.value, Path) else line.value
        text = f"{line.name} = {to_toml(value)}"
        if line.only_here:
            texts.append(f"# {text}  {to_comment('not for a file: ' + line.only_here)}")
        else:
            texts.append(f"{text}  {to_comment(line.source)}")
    return "\n".join(texts)


def _settled(configuration: Configuration) -> Choices:
    given: dict[str, Any] = configuration.arguments()
    saved: Mapping[str, Any] | None = None
    if given.get("resume") is not None:
        saved = saved_config(Path(given["resume"]))
        given = {"task": saved_task(saved, Path(given["resume"])), "seed": saved["seed"], **given}
    if given.get("task") is None:
        raise ArgumentTypeError(
            "there is nothing to train", expected="a task, or resume=RUN_DIR", got="neither"
        )
    device = given.get("device", "auto" if saved is None else saved["device"])
    given |= {"seed": given.get("seed") or 0, "device": choose_device(device), "saved": saved}
    given["way"] = {**given}
    given["source"] = given.pop("task")
    taken: dict[str, Any] = {n: given.get(n) for n in inspect.signature(settle).parameters}
    return settle(**taken)


def _origin(name: str, choices: Choices) -> str:
    of_task = name == "task" or getattr(choices.task, name, None) not in (None, (), [])
    return f"task {choices.task.name}" if of_task else "default"


def _with_limits(line: Line, path: bool, choices: Choices) -> Line:
    """Return the line with the reason why a file cannot say the same, if there is one."""
    value, why = line.value, ""
    if line.name == "task" or path:
        value = str(value)
        if line.name != "task" or is_path(value):
            value = _from_here(value)
            why = problem_of_path(value, Path())
    elif line.name == "batch_size" and isinstance(choices.task.train, DataLoader):
        why = "that of the task's DataLoader"
    elif line.name == "loss":
        try:
            check_expression(line.name, value, "")
        except RavineError:
            why = "a function of the task's own"
    return Line(line.name, value, line.source, why)


def _from_here(path: str) -> str:
    """Return a path as seen from this folder, if it is below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
