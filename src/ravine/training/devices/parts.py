"""A batch in parts: so many for each process, so many passes of each.

The rows stay in their order, and the sizes differ by one at most. Every process has the same number
of parts, so that all of them meet as often as the others; where rows are fewer than parts, one
that has none computes on the first row and counts nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ravine.training.devices.means import amount_of, is_sum


class Part(NamedTuple):
    """Rows of a batch, and what their loss is multiplied by in that of the batch.

    One that stands in for no rows has the first row, which counts nothing.
    """

    inputs: Tensor
    targets: Tensor
    share: float
    stands_in: bool = False


def bounds(rows: int, parts: int) -> list[int]:
    """Return where each part begins, and the end.

    >>> bounds(10, 4)
    [0, 3, 6, 8, 10]
    """
    small, larger = divmod(rows, parts)
    return [k * small + min(k, larger) for k in range(parts + 1)]


@dataclass(frozen=True)
class Parts:
    """How a batch is divided.

    Attributes:
        passes: parts that one process takes one after the other.
        rank, world: this process, and how many there are.
    """

    passes: int = 1
    rank: int = 0
    world: int = 1

    @property
    def whole(self) -> bool:
        """Whether there is nothing to divide."""
        return self.passes * self.world == 1

    def own(self, inputs: Tensor, targets: Tensor, loss: Any) -> list[Part]:
        """Return this process's parts of a batch.

        Args:
            inputs, targets: the whole batch, the same in every process.
            loss: what is computed of the parts.
        """
        if self.whole:
            return [Part(inputs, targets, 1.0)]
        passes = min(self.passes, -(-len(inputs) // self.world))
        places = bounds(len(inputs), passes * self.world)
        own = places[self.rank * passes : (self.rank + 1) * passes + 1]
        amount = 0.0 if is_sum(loss) else amount_of(loss, targets)
        return list(_cut(inputs, targets, own, loss, amount))

    def looked_at(self, inputs: Tensor, targets: Tensor, loss: Any) -> Part:
        """Return this process's part of a batch that is only looked at, in one pass."""
        if self.world == 1:
            return Part(inputs, targets, 1.0)
        (part,) = Parts(1, self.rank, self.world).own(inputs, targets, loss)
        return part


def _cut(
    inputs: Tensor, targets: Tensor, places: list[int], loss: Any, amount: float
) -> Iterator[Part]:
    for first, last in itertools.pairwise(places):
        if first == last:
            yield Part(inputs[:1], targets[:1], 0.0, stands_in=True)
            continue
        rows = targets[first:last]
        share = 1.0 if is_sum(loss) else amount_of(loss, rows) / amount if amount else 0.0
        yield Part(inputs[first:last], rows, share)
