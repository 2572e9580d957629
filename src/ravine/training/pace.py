"""How often something may be done that only watches the run."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace", "Sparser"]

SHARE = 0.01
"""The part of the run's time that one watcher may take."""

LONGEST = 10.0
"""Seconds after which it is time again, however long it took last: a terminal may have hung."""


class Pace:
    """Tells when it is time again: after some seconds, and after 100 times what it took last.

    What the first time takes does not count: files are opened then, and packages imported.

    Args:
        every: the least seconds between two times.
        clock: seconds that never run backwards.

    Example:
        >>> now = [0.0]
        >>> pace = Pace(0.1, clock=lambda: now[0])
        >>> pace.due(), pace.due()
        (True, False)
        >>> now[0] = 0.2
        >>> pace.due()
        True
        >>> now[0] = 0.25  # what was done took 0.05 s: the next time is 5 s later
        >>> pace.done()
        >>> now[0] = 5.0
        >>> pace.due()
        False
        >>> now[0] = 5.26
        >>> pace.due()
        True
    """

    def __init__(self, every: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every = every
        self._clock = clock
        self._began = 0.0
        self._next: float | None = None
        self._first = True

    def due(self) -> bool:
        """Tell whether it is time, and if so count from now."""
        now = self._clock()
        if self._next is not None and now < self._next:
            return False
        self._first = self._next is None
        self._began = now
        self._next = now + self._every
        return True

    def done(self) -> None:
        """Say that what was due is done, which tells how long it took."""
        if self._first:
            return
        now = self._clock()
        wait = (now - self._began) / SHARE
        self._next = max(self._began + self._every, now + min(wait, LONGEST))


class Sparser:
    """Tells when it is time for another row: the n-th comes n / 3600 seconds after the one before.

    So n rows take n^2 / 7200 seconds: 5,000 in an hour, 25,000 in a day, 66,000 in a week.

    Args:
        count: rows that there are already.
        clock: seconds that never run backwards.
    """

    def __init__(self, count: int = 0, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._count = count
        self._clock = clock
        self._next: float | None = None

    def due(self) -> bool:
        """Tell whether it is time, and if so count the row."""
        now = self._clock()
        if self._next is not None and now < self._next:
            return False
        self._count += 1
        self._next = now + self._count / 3600
        return True
