"""The checkpoint of the best epoch, kept beside the last ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ravine.regularize import EarlyStopping
from ravine.training.checkpoints import Memory, Position, Store

__all__ = ["Best"]


class Best:
    """Copies the state at an epoch that is better than all before; it is written with the next one.

    So an epoch that improves costs a copy and no writing, and what a checkpoint says was the best
    epoch is on the disk before that checkpoint.

    Args:
        store: where it is written, apart from the last ones, by their thread; None for nowhere.
        stopper: decides by which metric; None for the validation loss, or the training loss where
            there is no validation data.
        kept: whether there is a best one, written by this process or by another.
    """

    def __init__(self, store: Store | None, stopper: EarlyStopping | None, *, kept: bool) -> None:
        self.value: float | None = None
        self.store = store
        self.kept = kept
        self._stopper = stopper
        self._copied = Memory()

    def look(
        self, row: Mapping[str, Any], position: Position, state: Callable[[], dict[str, Any]]
    ) -> None:
        """Take in the row of an epoch that just ended."""
        if not self.kept:
            return
        name = "valid/loss" if "valid/loss" in row else "train/loss"
        sign = 1.0
        if self._stopper is not None:
            name = self._stopper.metric
            sign = 1.0 if self._stopper.mode == "min" else -1.0
        value = sign * float(row[name])
        if math.isfinite(value) and (self.value is None or value < self.value):
            self.value = value
            whole = state()  # all processes take part
            if self.store is not None:
                self._copied.save(position, whole)

    def write(self) -> None:
        """Have what was copied written, before what is saved after this.

        Raises:
            CheckpointError: the one before could not be written.
        """
        taken = self._copied.take()
        if self.store is not None and taken is not None:
            self.store.save(*taken, anew=True)

    def wait(self) -> None:
        """Wait until it is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if self.store is not None:
            self.store.wait()
