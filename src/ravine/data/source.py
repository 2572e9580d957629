"""Source: rows that are read batch by batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeAlias

from torch import Tensor

Pair: TypeAlias = tuple[Tensor, Tensor]


class Source(ABC):
    """Rows that are read batch by batch, in an order that seed and epoch decide.

    A source of one's own defines ``__len__`` and `batches`, or derives from `RowSource` and defines
    ``__len__`` and ``take``. Its batches are read ahead by a thread, so it draws from generators
    of its own only, made from the numbers it is given (`mixed`).
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def batches(self, size: int, *, seed: int | None, number: int, skip: int = 0) -> Iterator[Pair]:
        """Return the batches of an epoch without the first ``skip``, which are not read.

        Args:
            size: rows of a batch; the last one may be smaller.
            seed: decides the order together with ``number``; None is the source's own order.
            number: of the epoch, from 1.
            skip: batches to leave out at the beginning.

        Returns:
            Pairs of inputs and targets on the CPU, rows in the first dimension.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this data from other data, as plain words and numbers.

        A run that goes on compares it with that of its beginning. A source of one's own adds what it
        knows, such as a checksum; here it is the number of rows alone.
        """
        return {"rows": len(self)}
