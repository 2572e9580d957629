"""``ravine list``: every name with its meaning and formula, from its docstring."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ravine.errors import unknown_name

__all__ = ["KINDS", "Sources", "describe", "print_list"]

KINDS = ("optimizers", "losses", "schedules", "regularizers", "tasks")

Sources = Mapping[str, Mapping[str, Callable[..., Any]]]

_HEADER = re.compile(r"(?:The )?Equations?\s*:{1,2}\s*(.*)", re.IGNORECASE)
# What the caller of an expression does not write: training fills these in.
_FILLED_IN = frozenset({"params", "input", "target", "seed", "self"})


def print_list(kind: str | None, sources: Sources | None = None) -> None:
    """Print one kind of names, or all.

    Args:
        kind: one of ``KINDS``, or None for all of them.
        sources: by kind, what can be named; Ravine's own when None.

    Raises:
        UnknownNameError: for another kind.
    """
    from rich.console import Console
    from rich.text import Text

    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of thing to list", kind, KINDS)
    sources = _own() if sources is None else sources
    console = Console(file=sys.stdout, highlight=False)
    for heading in KINDS if kind is None else (kind,):
        console.print(Text(heading, style="bold underline"))
        options = {name: _options(thing) for name, thing in sources[heading].items()}
        shared = _shared(list(options.values()))
        if shared:
            said = f"  each also takes {_written(shared)}"
            console.print(Text(said, style="dim"), soft_wrap=True)
        for name, thing in sources[heading].items():
            meaning, formula = describe(thing)
            own = {k: v for k, v in options[name].items() if k not in shared or v != shared[k]}
            called = f"({_written(own)})" if own else ""
            console.print(
                Text.assemble("\n  ", (name, "bold cyan"), (called, "dim")), soft_wrap=True
            )
            console.print(Text(f"    {meaning}"), soft_wrap=True)
            for line in formula:
                console.print(Text(f"      {line}", style="green"), soft_wrap=True)
        console.print()


def describe(thing: Callable[..., Any]) -> tuple[str, list[str]]:
    """Read the first line and the formula of a docstring.

    The formula is the section ``Equation:`` (on its line, or indented below it) or, without such a
    section, the indented lines right below the first paragraph.

    Args:
        thing: a function or class.

    Returns:
        The first line ("" without a docstring) and the lines of the formula, indented among
        themselves only.
    """
    lines = (inspect.getdoc(thing) or "").splitlines()
    if not lines:
        return "", []
    for i, line in enumerate(lines):
        if found := _HEADER.fullmatch(line.strip()):
            first = [found.group(1)] if found.group(1) else []
            depth = len(line) - len(line.lstrip())
            return lines[0], first + _block(lines[i + 1 :], deeper_than=depth)
    rest = lines[1:]
    while rest and rest[0].strip():
        rest = rest[1:]
    return lines[0], _block(rest, deeper_than=0)


def _block(lines: list[str], *, deeper_than: int) -> list[str]:
    """Take the lines that are indented further than a column, up to the first that is not."""
    taken: list[str] = []
    for line in lines:
        if not line.strip():
            if taken:
                break
            continue
        if len(line) - len(line.lstrip()) <= deeper_than or line.lstrip().startswith(">>>"):
            break
        taken.append(line)
    return inspect.cleandoc("\n".join(["", *taken])).splitlines() if taken else []


def _options(thing: Callable[..., Any]) -> dict[str, str]:
    """Return each option with its default as written, "" where there is none."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return {}
    # A default is shown as its repr, so no annotation gets in the way of reading.
    return {
        p.name: "" if p.default is p.empty else repr(p.default)
        for p in parameters
        if p.name not in _FILLED_IN and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def _shared(options: list[dict[str, str]]) -> dict[str, str]:
    """Return what everything of a kind takes, each with its most common default."""
    if len(options) < 3:
        return {}
    common = [name for name in options[0] if all(name in one for one in options)]
    usual = {name: Counter(one[name] for one in options).most_common(1)[0] for name in common}
    return {name: text for name, (text, count) in usual.items() if text and count > 1}


def _written(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={text}" if text else name for name, text in options.items())


def _own() -> Sources:
    from ravine.tasks import TASKS
    from ravine.training import catalog

    return {
        "optimizers": catalog.OPTIMIZERS,
        "losses": catalog.LOSSES,
        "schedules": catalog.SCHEDULES,
        "regularizers": catalog.REGULARIZERS,
        "tasks": TASKS,
    }
