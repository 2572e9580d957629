"""The checkpoints of a run: the last ones are kept, a damaged one is passed over.

Which is newer follows from the position in the name, never from a clock.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ravine.errors import CheckpointError
from ravine.training.checkpoints.folder import (
    DamageError,
    Position,
    read_checkpoint,
    write_checkpoint,
)
from ravine.training.checkpoints.tree import from_plain, to_plain


def writing_thread() -> ThreadPoolExecutor:
    """Return a thread that writes checkpoints, one after the other."""
    return ThreadPoolExecutor(1, thread_name_prefix="ravine-checkpoint")


class Store:
    """A folder of checkpoints.

    Args:
        folder: where they are; made when the first is written.
        keep: how many of the last ones stay, >= 1.
        writer: the thread that writes, in the order of saving; None for one of its own.
    """

    def __init__(
        self, folder: Path, keep: int = 2, *, writer: ThreadPoolExecutor | None = None
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.seconds = 0.0
        """What the last writing took, in its thread."""
        self._writer = writer or writing_thread()
        self._writing: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._writing is not None and not self._writing.done()

    def positions(self) -> list[Position]:
        """Return the positions of the checkpoints, whole or not, in order."""
        with contextlib.suppress(FileNotFoundError):
            found = (Position.named(path.name) for path in self.folder.iterdir())
            return sorted(position for position in found if position is not None)
        return []

    def save(self, position: Position, state: Any, *, anew: bool = False) -> None:
        """Copy the state and write it in another thread, while the run goes on.

        Args:
            position: what is there already is not written again.
            state: all that a checkpoint holds.
            anew: take away what is there, which may be another.

        Raises:
            CheckpointError: the checkpoint before this one could not be written, or the state
                has no form in files.
        """
        self.wait()
        plain, tensors = to_plain(state)
        self._writing = self._writer.submit(self._write, position, plain, tensors, anew)

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def newest(self, at_most: Position | None = None) -> tuple[Position | None, Any, list[str]]:
        """Return position and state of the newest whole checkpoint, and what was passed over.

        A damaged one is named in the list, and moved aside under a name ending in ".damaged".

        Args:
            at_most: the last position that is looked at; None for all.
        """
        self.wait()
        passed: list[str] = []
        for position in self._candidates(at_most):
            try:
                found = from_plain(*read_checkpoint(self.folder / position.name))
                return position, found, passed
            except DamageError as damage:
                passed.append(self._passed(position, str(damage)))
        return None, None, passed

    def drop_after(self, position: Position) -> None:
        """Take away the checkpoints behind a position.

        Raises:
            CheckpointError: one of them cannot be taken away.
        """
        self.wait()
        for newer in reversed(self.positions()):
            if newer > position:
                self._remove(newer)
        if self.positions() and self.positions()[-1] > position:
            raise CheckpointError(
                "a checkpoint that is not good cannot be taken away",
                where=str(self.folder / self.positions()[-1].name),
                do="take it away yourself, then resume",
            )

    def _write(self, position: Position, plain: Any, tensors: Any, anew: bool) -> None:
        start = time.perf_counter()
        if self._due(position, anew):
            write_checkpoint(self.folder / position.name, plain, tensors)
            self._prune()
            self.seconds = time.perf_counter() - start

    def _due(self, position: Position, anew: bool) -> bool:
        """Whether there is something to write."""
        if anew:
            self._remove(position)
        # What is there was written before the run was resumed from it.
        return not (self.folder / position.name).exists()

    def _prune(self) -> None:
        for old in self.positions()[: -self.keep]:
            self._remove(old)

    def _candidates(self, at_most: Position | None) -> list[Position]:
        """Return the positions to be read, the newest first; take away what a killed process left."""
        with contextlib.suppress(OSError):
            for part in self.folder.glob("step-*.part"):
                shutil.rmtree(part, ignore_errors=True)
        return [p for p in reversed(self.positions()) if at_most is None or p <= at_most]

    def _passed(self, position: Position, damage: str) -> str:
        """Move a damaged checkpoint aside; return what is told of it."""
        folder = self.folder / position.name
        aside = folder.with_name(folder.name + ".damaged")
        with contextlib.suppress(OSError):
            if aside.exists():  # it was written again, and damaged again
                shutil.rmtree(aside)
            folder.rename(aside)
        return f"checkpoint {position.name} is damaged ({damage})"

    def _remove(self, position: Position) -> None:
        # Renamed first: a folder that is half taken away is never seen under a reader's name.
        folder = self.folder / position.name
        gone = folder.with_name(folder.name + ".part")
        with contextlib.suppress(OSError):
            folder.rename(gone)
            shutil.rmtree(gone)
