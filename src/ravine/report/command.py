"""The command line that repeats a run, from its resolved configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["command_line"]

_OPTIONS = ("optimizer", "loss", "regularize", "batch_size", "epochs", "seed", "device")
_BARE = re.compile(r"[\w./:+=,@-]+", re.ASCII)
# Inside double quotes these mean themselves in POSIX shells, PowerShell and cmd alike.
_DOUBLE = re.compile(r"[\w \t./:+=,@()<>*'\[\]{}|;&?#-]+", re.ASCII)
# A choice made of Python objects: its repr names an address or a local function, not an expression.
_OBJECT = re.compile(r"<.*>|\bat 0x[0-9a-f]+")


def command_line(config: Mapping[str, Any]) -> str | None:
    """Write the ``ravine train`` line that repeats a run.

    Args:
        config: the ``"config"`` of a record.

    Returns:
        One line for a shell, or None when the run was made of Python objects that have no written
        form (a lambda, a local class), so that no line could repeat it.

    >>> command_line({"task": "digits", "optimizer": "adam(lr=0.001)", "epochs": 2, "seed": 0})
    'ravine train digits --optimizer "adam(lr=0.001)" --epochs 2 --seed 0'
    """
    task = config.get("task")
    if task in (None, ""):
        return None
    words: list[str] = []
    for name in _OPTIONS:
        value = config.get(name)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                words += ["--" + name.replace("_", "-"), str(one)]
    task = str(task)
    if any(_OBJECT.search(word) for word in [task, *words]):
        return None
    # A name that begins with a dash would be read as an option: it goes last, after "--".
    words = [*words, "--", task] if task.startswith("-") else [task, *words]
    return " ".join(["ravine", "train", *map(_quote, words)])


def _quote(word: str) -> str:
    if _BARE.fullmatch(word):
        return word
    # Double quotes work in every shell; what they do not protect gets the strict POSIX form.
    return f'"{word}"' if _DOUBLE.fullmatch(word) else shlex.quote(word)
