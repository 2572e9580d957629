"""The checkpoints of a run: the last ones are kept, a damaged one is passed over.

Which is newer follows from the position in the name, never from a clock.
"""

from __future__ import annotations

import contextlib
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ravine.training.checkpoints.folder import (
    DamageError,
    Position,
    read_checkpoint,
    write_checkpoint,
)
from ravine.training.checkpoints.tree import from_plain, to_plain


class Store:
    """A folder of checkpoints.

    Args:
        folder: where they are; made when the first is written.
        keep: how many of the last ones stay, >= 1.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ravine-checkpoint")
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

    def save(self, position: Position, state: Any) -> None:
        """Copy the state and write it in another thread, while the run goes on.

        Raises:
            CheckpointError: the checkpoint before this one could not be written, or the state
                has no form in files.
        """
        self.wait()
        plain, tensors = to_plain(state)
        self._writing = self._writer.submit(self._write, position, plain, tensors)

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

    def newest(self) -> tuple[Position | None, Any, list[str]]:
        """Return position and state of the newest whole checkpoint, and what was passed over.

        A damaged one is named in the list, and moved aside under a name ending in ".damaged".
        """
        passed: list[str] = []
        for position in reversed(self.positions()):
            folder = self.folder / position.name
            try:
                return position, from_plain(*read_checkpoint(folder)), passed
            except DamageError as damage:
                passed.append(f"checkpoint {position.name} is damaged ({damage})")
                with contextlib.suppress(OSError):
                    folder.rename(folder.with_name(folder.name + ".damaged"))
        return None, None, passed

    def _write(self, position: Position, plain: Any, tensors: Any) -> None:
        folder = self.folder / position.name
        if folder.exists():  # written before the run was resumed from it
            return
        write_checkpoint(folder, plain, tensors)
        for old in self.positions()[: -self.keep]:
            self._remove(old)

    def _remove(self, position: Position) -> None:
        # Renamed first: a folder that is half taken away is never seen under a reader's name.
        folder = self.folder / position.name
        gone = folder.with_name(folder.name + ".part")
        with contextlib.suppress(OSError):
            folder.rename(gone)
            shutil.rmtree(gone)
