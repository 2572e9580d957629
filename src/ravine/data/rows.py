"""Sources whose rows can be taken by number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.fingerprint import of_array
from ravine.data.order import Windowed, epoch_order
from ravine.data.source import Pair, Source
from ravine.errors import ArgumentError


class RowSource(Source):
    """A source whose rows can be taken by number: it says which row is where, not in which order.

    Attributes:
        blocks: None for a permutation of all rows (8 bytes a row while an epoch lasts), or in what
            blocks and windows they are mixed.
    """

    blocks: Windowed | None = None

    @abstractmethod
    def take(self, rows: Tensor) -> Pair:
        """Return inputs and targets of rows by number (int64), in that order."""

    def batches(self, size: int, *, seed: int | None, number: int, skip: int = 0) -> Iterator[Pair]:
        """Return the batches of an epoch; what is skipped is not read."""
        first = skip * size
        if seed is None:
            for start in range(first, len(self), size):
                yield self.take(torch.arange(start, min(start + size, len(self))))
        elif self.blocks is None:
            # Cut one by one: the pieces of a long order, made at once, take more room than it does.
            order = epoch_order(len(self), seed, number)
            for start in range(first, len(self), size):
                yield self.take(order[start : start + size])
        else:
            left = torch.empty(0, dtype=torch.int64)
            starts = np.concatenate([[0], np.cumsum(self.blocks.sizes)]).tolist()
            for window in self.blocks.epoch(seed, number, first):
                rows = torch.cat([torch.arange(starts[b], starts[b + 1]) for b in window.blocks])
                left = torch.cat([left, rows[window.order]])
                whole = len(left) - len(left) % size
                for start in range(0, whole, size):
                    yield self.take(left[start : start + size])
                left = left[whole:]
            if len(left):
                yield self.take(left)

    def select(self, rows: Tensor | Sequence[int]) -> Selected:
        """Return the source of some of the rows, in the order of the numbers given.

        Raises:
            ArgumentError: there is no such row, or none is chosen.
        """
        return Selected(self, torch.as_tensor(rows, dtype=torch.int64))


class Selected(RowSource):
    """Some rows of another source, by number."""

    def __init__(self, source: RowSource, rows: Tensor) -> None:
        if rows.ndim != 1 or len(rows) == 0 or rows.min() < 0 or rows.max() >= len(source):
            shown = f"shape {tuple(rows.shape)}"
            if len(rows):
                shown += f", from {int(rows.min())} to {int(rows.max())}"
            raise ArgumentError(
                "the rows cannot be selected",
                got=shown,
                expected=f"one number at least, each from 0 to {len(source) - 1}",
            )
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Tensor) -> Pair:
        """Return rows by their number among the selected ones."""
        return self._source.take(self._rows[rows])

    def fingerprint(self) -> dict[str, Any]:
        """Return the rows that are selected, and what the source says of itself."""
        return {"selected": of_array(self._rows), "source": self._source.fingerprint()}
