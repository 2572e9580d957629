"""The order of the rows in an epoch: decided by the seed and the epoch's number, nothing else.

Nothing has to be saved for it, and the order of a later epoch is known without the ones before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def mixed(*numbers: int) -> list[int]:
    """Return four seeds of 32 bits that the numbers decide together, each >= 0.

    The numbers go through NumPy's ``SeedSequence``, whose hash lets every bit of each number change
    every bit of the seeds and is the same on every machine and in every version: neighbouring
    seeds and epochs have orders that have nothing in common, and ``seed + epoch`` is not
    mistaken for ``seed + 1, epoch - 1``.

    >>> mixed(0, 1) != mixed(1, 0)
    True
    >>> mixed(3, 7) == mixed(3, 7)
    True

    Source: O'Neill, "Developing a seed_seq alternative" (2015); NumPy, NEP 19.
    """
    # With how many there are: SeedSequence takes (3, 1) and (3, 1, 0) for the same.
    sequence = np.random.SeedSequence((len(numbers), *numbers))
    return [int(word) for word in sequence.generate_state(4)]


def epoch_order(rows: int, seed: int, *numbers: int) -> Tensor:
    """Return the order of an epoch: a permutation of ``range(rows)``, int64, on the CPU.

    Args:
        rows: how many rows there are.
        seed: of the run.
        numbers: the epoch's, from 1, and what else tells this permutation from others.

    >>> sorted(epoch_order(5, 0, 1).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = torch.Generator().manual_seed(mixed(seed, *numbers)[0])
    return torch.randperm(rows, generator=generator)


@dataclass(frozen=True)
class Window:
    """A part of an epoch: the blocks that are read for it, and the order of their rows.

    Attributes:
        blocks: numbers of the blocks, in the order in which they are put together.
        order: int64, the rows by their places in the blocks put together.
    """

    blocks: list[int]
    order: Tensor


@dataclass(frozen=True)
class Windowed:
    """Blocks of rows in an order of the epoch, and the rows mixed inside a window of blocks.

    For rows that are quick to read only beside each other. The blocks are put in an order of the
    epoch; as many of them in turn as hold ``window`` rows are mixed.

    Differs from a permutation of all rows: rows of one block are at most a window apart, in every
    epoch. Data that is sorted (by class, by time) inside of blocks larger than a window gives
    batches that are alike; a window that holds all rows gives any permutation.

    Args:
        sizes: rows of each block.
        window: rows that are mixed at a time, at least, where there are as many; >= 1.
    """

    sizes: Sequence[int]
    window: int

    def epoch(self, seed: int, number: int, first: int = 0) -> Iterator[Window]:
        """Return the windows of an epoch from row ``first`` on, in constant memory.

        >>> windows = Windowed([2, 2, 1], window=3).epoch(0, 1)
        >>> sum(len(window.order) for window in windows)
        5
        """
        blocks: list[int] = []
        rows = place = 0
        for block in epoch_order(len(self.sizes), seed, number).tolist():
            blocks.append(block)
            rows += self.sizes[block]
            if rows >= self.window:
                yield from self._window(blocks, rows, first, seed, number, place)
                first, rows, blocks, place = max(first - rows, 0), 0, [], place + 1
        yield from self._window(blocks, rows, first, seed, number, place)

    def facts(self) -> dict[str, int]:
        """Return what decides the order beside seed and number."""
        return {"blocks": len(self.sizes), "window": self.window}

    def in_turn(self, first: int = 0) -> Iterator[Window]:
        """Return every block as a window, rows in their own order, from row ``first`` on."""
        for block, rows in enumerate(self.sizes):
            if first < rows:
                yield Window([block], torch.arange(first, rows))
            first = max(first - rows, 0)

    @staticmethod
    def _window(
        blocks: list[int], rows: int, first: int, seed: int, number: int, place: int
    ) -> Iterator[Window]:
        if first < rows:
            yield Window(blocks, epoch_order(rows, seed, number, place)[first:])
