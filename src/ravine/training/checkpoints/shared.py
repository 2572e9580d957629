"""Checkpoints of weights that are divided over processes: each process keeps its own part."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.training.checkpoints.folder import (
    DamageError,
    Position,
    check_files,
    manifest,
    opened,
)
from ravine.training.checkpoints.led import Led
from ravine.training.checkpoints.memory import Memory
from ravine.training.checkpoints.store import Store
from ravine.training.checkpoints.tree import from_plain
from ravine.training.devices import Part, Team, mapped

__all__ = ["Apart", "Each", "Shared"]


class Each(Led):
    """A store in every process, which all of them ask together."""

    def save(self, position: Position, state: Any, *, anew: bool = False) -> None:
        self._store.save(position, state, anew=anew)

    def newest(self, at_most: Position | None = None) -> tuple[Position | None, Any, list[str]]:
        return self._store.newest(at_most)

    def drop_after(self, position: Position) -> None:
        self._store.drop_after(position)


class Shared(Store):
    """A folder of checkpoints to which every process writes its part of what is divided.

    What is read comes in slices (`ravine.training.devices.Slices`): each process reads those that
    it needs. The first process alone makes, moves and takes away folders.

    Args:
        folder, keep, writer: see `Store`; all processes see the folder.
        team: the processes.
    """

    def __init__(self, folder: Path, keep: int, *, writer: ThreadPoolExecutor, team: Team) -> None:
        from ravine.training.checkpoints.together import write_together

        super().__init__(folder, keep, writer=writer)
        self._team = team
        self._write_together = write_together

    def newest(self, at_most: Position | None = None) -> tuple[Position | None, Any, list[str]]:
        self.wait()
        passed: list[str] = []
        for position in self._team.led(lambda: self._candidates(at_most)):
            plain, tensors, damage = self._read(self.folder / position.name)
            if damage is None:
                return position, from_plain(plain, tensors), passed
            passed.append(self._team.led(lambda: self._passed(position, damage)))  # noqa: B023
        return None, None, passed

    def drop_after(self, position: Position) -> None:
        self.wait()
        self._team.led(lambda: Store.drop_after(self, position))

    def _write(self, position: Position, plain: Any, tensors: Any, anew: bool) -> None:
        start = time.perf_counter()
        self._write_together(
            self.folder / position.name, plain, tensors, self._team,
            due=lambda: self._due(position, anew),
        )  # fmt: skip
        if self._team.leads:
            self._prune()
        self.seconds = time.perf_counter() - start

    def _read(self, folder: Path) -> tuple[Any, Any, str | None]:
        """Return the plain part, the tensors in slices, and what is wrong with the checkpoint.

        Its files are looked at to the bit, by each process some of them.
        """
        team = self._team
        files, damage = team.led(lambda: _or_damage(manifest, folder))
        if damage is not None:
            return None, None, damage
        mine = {name: files[name] for name in sorted(files)[team.rank :: team.world]}
        for _, damage in team.gathered(_or_damage(check_files, folder, mine)):
            if damage is not None:
                return None, None, damage
        found, damage = team.led(lambda: _or_damage(opened, folder, files))
        return (*(found or (None, None)), damage)


def _or_damage(read: Any, *arguments: Any) -> tuple[Any, str | None]:
    try:
        return read(*arguments), None
    except DamageError as damage:
        return None, str(damage)


class Apart(Memory):
    """The newest states in the memory of the processes, in each its part of what is divided.

    Args:
        team: the processes.
        keep: how many of the last ones, >= 1.
    """

    def __init__(self, team: Team, keep: int = 1) -> None:
        super().__init__(keep)
        self._team = team

    def newest(self, at_most: Position | None = None) -> tuple[Position | None, Any, list[str]]:
        position, state, passed = super().newest(at_most)
        parts: list[Part] = []
        rest = mapped(state, _Gaps(parts))
        # As from a disk: all else is what the first process has (masks, statistics of batch norm).
        rest = self._team.led(lambda: rest)
        return position, mapped(rest, lambda v: parts[v.of] if isinstance(v, _Gap) else v), passed


@dataclass(frozen=True)
class _Gap:
    """Where a part belongs that each process has of its own."""

    of: int


class _Gaps:
    """Puts a gap in the place of every part, which it adds to a list."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Part):
            return value
        self._parts.append(value)
        return _Gap(len(self._parts) - 1)
