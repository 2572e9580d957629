"""Where the states of a run are kept: on the disk or in memory, by one process or by each its part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ravine.errors import RunDirectoryError
from ravine.training.checkpoints.led import Led
from ravine.training.checkpoints.memory import Memory
from ravine.training.checkpoints.shared import Apart, Each, Shared
from ravine.training.checkpoints.store import Store, writing_thread
from ravine.training.devices import Team

__all__ = ["Places"]


class Places:
    """Makes what keeps the states of a run; all processes make it, and the same of it.

    Args:
        folder: the run directory; None for memory only.
        team: the processes.
        divided: whether each of them has a part of the weights only, and keeps that.

    Raises:
        RunDirectoryError: weights are divided, and not all processes see the folder.
    """

    def __init__(self, folder: Path | None, team: Team, *, divided: bool) -> None:
        self._folder = folder
        self._team = team
        self._divided = divided
        self._writer = writing_thread()  # of all places: in the order of saving
        if divided and folder is not None:
            _check_seen(folder, team)
            team.group_for_threads()

    def store(self, name: str, keep: int) -> Store | None:
        """Return what this process writes into a folder of the run; None for nothing."""
        if self._folder is None or not (self._divided or self._team.leads):
            return None
        if self._divided:
            return Shared(self._folder / name, keep, writer=self._writer, team=self._team)
        return Store(self._folder / name, keep, writer=self._writer)

    def asked(self, name: str, keep: int, *, held: int = 1) -> Led:
        """Return what all processes ask for the states in a folder of the run.

        Args:
            keep: how many stay in the folder.
            held: how many stay in memory where there is none.
        """
        store = self.store(name, keep)
        if store is None:
            return self.memory(held)
        return Each(store, self._team) if self._divided else Led(store, self._team)

    def memory(self, keep: int = 1) -> Led:
        """Return what keeps states in memory."""
        if self._divided:
            return Each(Apart(self._team, keep), self._team)
        return Led(Memory(keep), self._team)


def _check_seen(folder: Path, team: Team) -> None:
    """Raise unless a file that the first process makes in the folder is seen by the others."""
    made = team.led(lambda: _made(folder))
    seen = team.gathered(Path(made).exists())
    if team.leads:
        Path(made).unlink(missing_ok=True)
    if not all(seen):
        raise RunDirectoryError(
            "the run directory is not the same folder in all processes",
            where=f"{folder}, process {seen.index(False)}",
            got="a file that process 0 made there is not seen",
            expected="a folder on a file system that all machines share: each process writes its part",
            do="name such a folder, or use parallel='data', where the first process writes all",
        )


def _made(folder: Path) -> str:
    try:
        handle, name = tempfile.mkstemp(prefix=".seen-", dir=folder)
        os.close(handle)
    except OSError as error:
        raise RunDirectoryError(
            "a file of the run cannot be written", where=str(folder), got=str(error)
        ) from error
    return name
