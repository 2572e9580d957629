"""Where the logits of a chunk of rows lie: in strips of classes, in a buffer or in lent memory.

The gradient of the weight is memory that waits for its first numbers. As many rows as the width has
numbers find room for their logits there, strip on strip, and their gradient of the weight takes the
place of each strip after it. A chunk of that many rows runs the products at full speed and costs no
memory; only the rows after it need the small buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strips:
    """Logits (rows, classes), or their slopes, as one tensor for each slice of the classes."""

    places: list[slice]
    parts: list[Tensor]
    buffer: Tensor
    """(rows, classes): all of it, or space for some of its rows."""
    whole: bool

    def rows(self, start: int, stop: int) -> Tensor:
        """Return some rows; what is done to them may or may not be done to these."""
        if self.whole:
            return self.buffer[start:stop]
        space = self.buffer[: stop - start]
        return torch.cat([part[start:stop] for part in self.parts], 1, out=space)

    def put(self, start: int, values: Tensor) -> None:
        """Overwrite rows."""
        stop = start + len(values)
        if self.whole:
            self.buffer[start:stop] = values
            return
        for place, part in zip(self.places, self.parts, strict=True):
            part[start:stop] = values[:, place]

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        return zip(self.places, self.parts, strict=True)


def buffered(buffer: Tensor, step: int) -> Strips:
    """Return strips of ``step`` classes of a tensor (rows, classes)."""
    places = _places(buffer.shape[1], step)
    return Strips(places, [buffer[:, place] for place in places], buffer, True)


def lent(gradient: Tensor, rows: int, step: int, buffer: Tensor) -> Strips:
    """Return strips for at most as many rows as ``gradient`` (classes, width) is wide, inside of it."""
    places = _places(gradient.shape[0], step)
    parts = []
    for place in places:
        memory = gradient[place]
        parts.append(memory.view(-1)[: rows * len(memory)].view(rows, len(memory)))
    return Strips(places, parts, buffer, False)


def _places(classes: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, classes)) for start in range(0, classes, step)]
