"""Batches prepared by a thread while the model works on those before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE = 2.0
"""Seconds that the end of the thread is waited for: a disk that hangs shall not hold Ctrl-C up."""

AHEAD = 3
"""Batches that are ready or being made beside the one that is worked on."""


def prefetched(make: Callable[[], Iterator[Item]], ahead: int = AHEAD) -> Generator[Item]:
    """Give the items of an iterator in its order, made by a thread beforehand.

    The thread begins with the first item that is asked for, and has ended when this iterator has:
    at its end, at an error, when it is closed, and when nothing refers to it any more. Where reading
    hangs, it ends as soon as that goes on. An error in the thread is raised here, with its own
    traceback, after the items before it.

    Args:
        make: returns the iterator; called in the thread.
        ahead: how many items may wait, >= 1.

    >>> list(prefetched(lambda: iter("abc")))
    ['a', 'b', 'c']
    """
    producer = _Producer(make, ahead)
    producer.start()
    try:
        while (item := producer.next()) is not None:
            yield item[0]
    finally:
        producer.stop()


class _Producer(Generic[Item]):
    def __init__(self, make: Callable[[], Iterator[Item]], ahead: int) -> None:
        self._make = make
        self._room = threading.Semaphore(ahead)
        self._made: queue.SimpleQueue[tuple[Item] | BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        # A daemon: an iterator that is kept to the end of Python would otherwise keep it waiting.
        self._thread = threading.Thread(target=self._run, name="ravine data", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def next(self) -> tuple[Item] | None:
        """Return the next item in a tuple, or None at the end."""
        made = self._made.get()
        if isinstance(made, BaseException):
            raise made
        self._room.release()
        return made

    def stop(self) -> None:
        """End the thread, after the item that it is at."""
        self._stopped = True
        self._room.release()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            items = self._make()
            while self._room.acquire() and not self._stopped:
                try:
                    self._made.put((next(items),))
                except StopIteration:
                    break
            self._made.put(None)
        except BaseException as error:
            self._made.put(error)
