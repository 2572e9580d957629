"""Ctrl-C and SIGTERM end a run after the step that is under way, so that it can go on later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ravine.errors import Interrupted

_WATCHED = ("SIGINT", "SIGTERM")


class Signals:
    """Remembers that a signal came, until `check` is called between two steps.

    Args:
        agreed: returns the largest number in all processes of the run, which end after one step.
    """

    def __init__(self, agreed: Callable[[int], int] = int) -> None:
        self._came = 0
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
        """Take the signals inside of the block; a second one raises at once.

        Outside of the main thread, where Python delivers no signals, and for a signal that the
        process was started to ignore (nohup), nothing changes.
        """
        before = {}
        if threading.current_thread() is threading.main_thread():
            for name in _WATCHED:
                number = getattr(signal, name)
                # None: a handler that was not installed from Python, which could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = number
