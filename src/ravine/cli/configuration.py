"""``ravine train --dry-run``: the resolved configuration on stdout."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import typer

from ravine.report.strict_json import to_strict_json

if TYPE_CHECKING:
    from ravine.training.config import Configuration

__all__ = ["print_configuration"]


def print_configuration(configuration: Configuration, *, as_json: bool = False) -> None:
    """Print every argument with its value and its source, as TOML that ``--config`` takes.

    Args:
        configuration: what is given.
        as_json: print JSON, which ``--config`` takes in a file whose name ends in .json.
    """
    from ravine.training.config import resolve, to_text

    with contextlib.redirect_stdout(sys.stderr):  # a task of the user's own may print
        lines = resolve(configuration)
    if as_json:
        config = {line.name: line.value for line in lines if not line.only_here}
        sources = {line.name: line.source for line in lines}
        typer.echo(to_strict_json({"config": config, "sources": sources}))
    else:
        typer.echo(to_text(lines))
