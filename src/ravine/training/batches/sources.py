"""Batches of a source, read ahead."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator

import torch

from ravine.data import Source
from ravine.training.batches.prefetch import prefetched
from ravine.training.batches.protocol import Batch, Stateless, too_few


class SourceBatches(Stateless):
    """Batches of a source, read by a thread while the model works on those before.

    For a GPU they are put into pinned memory there, so that the copy does not wait.

    Args:
        source: what is read.
        size: rows of a batch.
        device: where the model is.
        seed: decides the order of every epoch; None keeps the source's own order.
    """

    def __init__(self, source: Source, size: int, device: torch.device, seed: int | None) -> None:
        self._source = source
        rows = len(source)
        self.rows: int | None = rows
        self.size = min(size, rows)
        self._steps = math.ceil(rows / self.size)
        self.steps: int | None = self._steps
        self._device = device
        self._seed = seed

    def epoch(self, number: int, skip: int = 0) -> Generator[Batch]:
        """Return the batches of an epoch; what is skipped is not read."""
        if skip > self._steps:
            raise too_few(number, skip, self._steps)
        batches = prefetched(lambda: self._read(number, skip))
        if self._device.type == "cpu":
            return batches
        return self._on_device(batches)

    def _read(self, number: int, skip: int) -> Iterator[Batch]:
        batches = self._source.batches(self.size, seed=self._seed, number=number, skip=skip)
        if self._device.type == "cuda":
            return ((inputs.pin_memory(), targets.pin_memory()) for inputs, targets in batches)
        return batches

    def _on_device(self, batches: Generator[Batch]) -> Generator[Batch]:
        with contextlib.closing(batches):
            for inputs, targets in batches:
                yield (
                    inputs.to(self._device, non_blocking=True),
                    targets.to(self._device, non_blocking=True),
                )
