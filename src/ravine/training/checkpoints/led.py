"""A store of the first process, which all processes of a run ask together."""

from __future__ import annotations

from typing import Any

from ravine.training.checkpoints.folder import Position
from ravine.training.checkpoints.memory import Memory
from ravine.training.checkpoints.store import Store
from ravine.training.devices import Team

__all__ = ["Led"]


class Led:
    """Hands everything to the store; what is read of it comes to every process.

    Args:
        store: where the states are; looked at in the first process only.
        team: the processes.
    """

    def __init__(self, store: Store | Memory, team: Team) -> None:
        self._store = store
        self._team = team

    @property
    def free(self) -> bool:
        """Whether this process may save now: it is the first, and nothing is being written."""
        return self._team.leads and not self._store.busy

    @property
    def seconds(self) -> float:
        """What the last writing took."""
        return self._store.seconds

    def save(self, position: Position, state: Any, *, anew: bool = False) -> None:
        """See `Store.save`."""
        if self._team.leads:
            self._store.save(position, state, anew=anew)

    def newest(self, at_most: Position | None = None) -> tuple[Position | None, Any, list[str]]:
        """See `Store.newest`."""
        return self._team.led(lambda: self._store.newest(at_most))

    def drop_after(self, position: Position) -> None:
        """See `Store.drop_after`."""
        self._team.led(lambda: self._store.drop_after(position))

    def wait(self) -> None:
        """See `Store.wait`."""
        self._store.wait()

    def close(self) -> None:
        """See `Store.close`."""
        self._store.close()
