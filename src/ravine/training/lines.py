"""Files with a JSON object in every line, which grow while a run goes on and survive its kill."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ravine.errors import RunDirectoryError
from ravine.report import to_strict_json

__all__ = ["STEPS", "add_line", "keep_lines", "read_lines", "read_steps"]

STEPS = "steps.jsonl"
_NUMBERS = {"NaN", "Infinity", "-Infinity"}


def add_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row at once; what fails leaves no part of a line behind.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    line = (to_strict_json(row) + "\n").encode()
    size = None
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            if file.write(line) != len(line):  # a disk that is nearly full takes a part
                raise OSError("there is no room for the whole line")
    except OSError as error:
        if size is not None:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
        raise RunDirectoryError(
            f"{path.name} cannot be written",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            do="make room or name another folder; what was written before is untouched",
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file such as ``history.jsonl``.

    A last line without its end is what a kill in the middle of writing leaves, and is left out.
    The strings of values that are not finite become floats.

    Raises:
        RunDirectoryError: the file cannot be read, or a whole line of it is no JSON object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "steps.jsonl"
        ...     _ = path.write_text('{"step": 1, "loss": "NaN"}\\n{"step": 2, "lo')
        ...     read_lines(path)
        [{'step': 1, 'loss': nan}]
    """
    return [row for row, _ in _read(path)]


def read_steps(run_dir: Path) -> list[dict[str, Any]]:
    """Read ``steps.jsonl`` of a run directory; no rows where there is no such file."""
    path = run_dir / STEPS
    return read_lines(path) if path.exists() else []


def keep_lines(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> int:
    """Cut a file behind its last row in order that is kept; return how many rows it has then.

    Args:
        path: the file; one that is not there has no rows.
        keep: tells whether a row stays. The first that does not is cut off with all after it, and
            half a line at the end is cut off too.

    Raises:
        RunDirectoryError: the file cannot be read or written.
    """
    if not path.exists():
        return 0
    count = size = 0
    for row, length in _read(path):
        if not keep(row):
            break
        count, size = count + 1, size + length
    try:
        os.truncate(path, size)
    except OSError as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    return count


def _read(path: Path) -> list[tuple[dict[str, Any], int]]:
    """Return each row with the bytes of its line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    rows = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise _unreadable(path, f"line {number} is no JSON object: {line[:60]!r}")
        rows.append(({name: _number(value) for name, value in row.items()}, len(line) + 1))
    return rows


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in _NUMBERS else value


def _unreadable(path: Path, got: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{path.name} cannot be read",
        where=str(path),
        got=got,
        expected="a JSON object in every line",
        do="take the file away or mend the line",
    )
