"""The stream that a run is shown on, whose reader may be slow, asleep or gone."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from typing import Any, TextIO

__all__ = ["Outlet"]


class Outlet:
    """Writes to a stream so that whoever reads it cannot end the run or hold it up.

    A reader that went away (``| head -1``, a closed terminal) or a full disk behind ``> log`` end
    the showing, not the run: what is written from then on goes nowhere, at the level of the process,
    so that neither a ``print`` of the task's nor Python's own flush at the end fails on it.

    A reader that does not read (a pager, Ctrl-S) fills the pipe, and the next write would wait.
    `ready` tells before; who shows a run under way leaves out what there is no room for.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.gone = False

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return not self.gone and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        """Have what else the stream has: during a run this is what ``sys.stdout`` is."""
        return getattr(self._stream, name)

    def ready(self) -> bool:
        """Tell whether a few lines can be written without waiting for the reader."""
        if self.gone:
            return False
        try:
            return bool(select.select([], [self._stream.fileno()], [], 0)[1])
        except (OSError, ValueError, AttributeError):  # not a file of the system's, or Windows
            return True

    def write(self, text: str) -> int:
        """Write, waiting for the reader if need be; nothing where there is none any more."""
        if not self.gone:
            try:
                self._stream.write(text)
            except OSError as error:
                self._leave(error)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        if not self.gone:
            try:
                self._stream.flush()
            except OSError as error:
                self._leave(error)

    def _leave(self, error: OSError) -> None:
        self.gone = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if error.errno != errno.EPIPE:  # a reader that has read enough needs no words about it
            with contextlib.suppress(OSError):
                sys.stderr.write(f"ravine: the run is no longer shown ({error}); it goes on\n")
