"""Ctrl-C, SIGTERM and a closed terminal end a run after the step under way: it can go on later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ravine.errors import Interrupted

HANG_UP = "SIGHUP"
"""A terminal was closed. It comes from the shell and from the system, and beside systemd's SIGTERM,
so that it says nothing of a person who will not wait, be it the first signal or the second. Windows
does not have it."""

_WATCHED = ("SIGINT", "SIGTERM", HANG_UP)


class Signals:
    """Remembers that a signal came, until `check` is called between two steps.

    Args:
        agreed: returns the largest number in all processes of the run, which end after one step.
    """

    def __init__(self, agreed: Callable[[int], int] = int) -> None:
        self._came = 0
        self._asked = False
        self._agreed = agreed

    def check(self) -> None:
        """Raise if a signal came since the run began.

        Raises:
            Interrupted: one came.
        """
        number = self._agreed(self._came)
        if number:
            raise Interrupted(signal.Signals(number).name)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Take the signals inside of the block; a second one raises at once, but for a hang-up.

        Outside of the main thread, where Python delivers no signals, and for a signal that the
        process was started to ignore (nohup), nothing changes.
        """
        before = {}
        if threading.current_thread() is threading.main_thread():
            for name in _WATCHED:
                number = getattr(signal, name, None)
                if number is None:
                    continue
                # None: a handler that was not installed from Python, which could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        asked = signal.Signals(number).name != HANG_UP
        if asked and self._asked:
            raise KeyboardInterrupt
        self._asked |= asked
        self._came = self._came or number
