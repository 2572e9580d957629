"""How the command ends: 0 good, 1 the run diverged or a check failed, 2 wrong usage, 130 Ctrl-C."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TextIO, cast

import typer

from ravine.cli.outlet import Outlet
from ravine.errors import BackendWarning, NonFiniteError, RavineError

__all__ = ["DIVERGED", "INTERRUPTED", "WRONG_USAGE", "reported"]

DIVERGED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


@contextmanager
def reported() -> Iterator[None]:
    """Turn Ravine's errors and warnings into words on stderr, and errors into exit codes.

    Errors of other kinds pass through: they are bugs (or the user's own task failing) and their
    traceback is what helps.
    """
    plain = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, BackendWarning):
            _say("warning", "yellow", str(message))
        else:
            plain(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except NonFiniteError as error:
            _say("error", "red", str(error))
            raise typer.Exit(DIVERGED) from error
        except RavineError as error:
            _say("error", "red", str(error))
            raise typer.Exit(WRONG_USAGE) from error
        except KeyboardInterrupt as error:
            name = getattr(error, "signal", "SIGINT")
            _say("interrupted", "yellow", "by Ctrl-C" if name == "SIGINT" else f"by {name}")
            raise typer.Exit(INTERRUPTED) from error


def _say(word: str, colour: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    # Soft wrap: a caret under a word must stay under that word.
    line = Text.assemble((f"{word}:", f"bold {colour}"), " ", text)
    # Through an outlet: where the terminal was closed, the exit code still is the run's.
    file = cast("IO[str]", Outlet(sys.stderr))
    Console(file=file, highlight=False).print(line, soft_wrap=True)
