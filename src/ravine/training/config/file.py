"""Read a configuration file. It may be a stranger's: it runs no code and leads to no other place."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ravine.errors import ConfigError, unknown_option
from ravine.tasks.loading import is_path
from ravine.training.config.expressions import check_expression, expression_from
from ravine.training.config.options import Option
from ravine.training.config.toml import printable

__all__ = ["problem_of_path", "read_file"]

_LARGEST = 1 << 20
"""Bytes of a configuration file; a larger one is something else."""


def read_file(path: Path, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return what a file gives for training's arguments, by name, each of the right type.

    Args:
        path: a TOML file; or the ``config.json`` of a run directory.
        options: what training can be told.

    Raises:
        ConfigError: the file cannot be read, or a value cannot be used.
        UnknownOptionError, UnknownNameError: with the nearest known name.
    """
    name = printable(str(path))
    values: dict[str, Any] = {}
    for key, value in _table(path, name).items():
        where = f"{key} in {name}"
        if key not in options:
            raise unknown_option("training", key, options, where=name)
        if value is None:  # JSON's way to leave out
            continue
        values[key] = _value(options[key], value, where)
        if key == "task":
            values[key] = _task(values[key], path.parent, where)
        elif options[key].path:
            problem = problem_of_path(values[key], Path())
            if problem:
                raise ConfigError(
                    f"a file may not say {key} = {values[key]!r}",
                    where=where,
                    got=problem,
                    expected="a path below the folder in which the command runs",
                    do=f"give it on the command line: --{key.replace('_', '-')}",
                )
    return values


def _value(option: Option, value: Any, where: str) -> Any:
    """Return a value with its tables and expressions read."""
    if option.choice and isinstance(value, Mapping):
        value = expression_from(option.name, value, where)
    elif option.choice and isinstance(value, list):
        value = [
            expression_from(option.name, one, where) if isinstance(one, Mapping) else one
            for one in value
        ]
    value = option.check(value, where)
    if option.choice:
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str):
                raise ConfigError(
                    f"{option.name} holds what is no expression",
                    where=where,
                    got=repr(one),
                    expected='text such as "adam(lr=1e-3)", or a table with a name',
                )
            check_expression(option.name, one, where)
    return value


def _task(source: str, folder: Path, where: str) -> str:
    """Return a built-in name as it is, a file as seen from here.

    A file of Python is run: only one that came with the configuration, below its folder, is taken.
    """
    if not is_path(source):
        return source
    problem = problem_of_path(source, folder)
    if problem:
        raise ConfigError(
            f"a file may not say task = {source!r}",
            where=where,
            got=f"{problem}; a task is Python that would be run",
            expected="a file below the folder of the configuration",
            do="name the task on the command line: ravine train TASK --config FILE",
        )
    return str(folder / source)


def problem_of_path(text: str, folder: Path) -> str:
    """Say why a path leads out of a folder, in the ways of every system; "" if it does not.

    >>> problem_of_path("runs/try", Path()), problem_of_path("runs/../../x", Path())
    ('', 'it has .. in it')
    """
    for kind in (PurePosixPath, PureWindowsPath):
        pure = kind(text)
        if pure.anchor or pure.drive:
            return "it is absolute"
        if ".." in pure.parts:
            return "it has .. in it"
    if not text or not text.isprintable():
        return "it is empty, or has characters that cannot be printed"
    if text.startswith("~"):
        return "it begins with ~"
    try:
        inside = (folder / text).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        return f"it cannot be followed: {error}"
    return "" if inside else "it leads out by a symbolic link"


def _table(path: Path, name: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(
            "the configuration cannot be read",
            where=name,
            got=error.strerror or str(error),
            expected="a TOML file, or the config.json of a run",
        ) from error
    if len(data) > _LARGEST:
        raise ConfigError(
            "the configuration is too large to be one",
            where=name,
            got=f"more than {_LARGEST:,} bytes",
        )
    json_file = path.suffix == ".json"
    try:
        text = data.decode("utf-8")
        table = json.loads(text, object_pairs_hook=_once) if json_file else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        nested = isinstance(error, RecursionError)
        raise ConfigError(
            f"the configuration is not {'JSON' if json_file else 'TOML'}",
            where=name,
            got="it is nested too deeply" if nested else printable(str(error)),
            do="" if json_file else 'text needs quotes: optimizer = "adam(lr=1e-3)"',
        ) from error
    if json_file and isinstance(table, dict) and isinstance(table.get("config"), dict):
        table = table["config"]  # as a run directory has it, beside the environment
    if not isinstance(table, dict):
        raise ConfigError("the configuration is no table", where=name, got=type(table).__name__)
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table
