"""How many classes of a linear head have their logits in memory at once, and where these lie.

The gradient of the weight is memory that waits for its first numbers, as in `linear_strips`: that of the
last classes has room for the logits of a few thousand others, and for their own part of the
gradient in float32. Only these last classes need memory of their own, and are fewer at a time.

Large chunks are what fills a GPU. By reasoning, not measured, of 8192 rows of width 2304 on an H200 with 132
multiprocessors: logits of 768 classes are 192 tiles of 128 x 256, two rounds for what takes 1.5, those of
4096 are 1024 tiles, 7.8 rounds of 8; and each chunk reads and writes the gradient of hidden in
float32, 151 MB, as long as its product takes for 430 classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_BYTES = 1 << 25
"""Bytes of the logits of a chunk and of its part of the gradient of the weight, in memory of their own."""

LARGE = 4096
"""Classes of a chunk at most in lent memory."""

LENT = 4
"""The fraction of the gradient of the weight that may be lent is one of so many."""

TILE = 128
"""Classes of a chunk are a multiple of it: what a tensor core's product is cut into."""


class Group(NamedTuple):
    """Chunks of one size."""

    size: int
    first: int
    last: int
    """The classes are first .. last - 1."""
    lent: bool
    """Whether there is room for them where the gradient of the weight by the later classes will be."""


def groups(rows: int, width: int, classes: int, lends: bool) -> list[Group]:
    """Return how the classes are cut into chunks; both visits have to do it in the same way.

    The same product of other sizes may be rounded differently, and a slope p - 1 is right to its last
    digits only if both times the largest logit is the same.
    """
    numbers = rows + width  # of float32, for each class of a chunk
    size = min(max(MOST_BYTES // (4 * numbers) // TILE * TILE, TILE), classes)
    large = min(LARGE, classes // LENT * width // (2 * numbers)) // TILE * TILE
    if not lends or large <= size:
        return [Group(size, 0, classes, False)]
    # The last classes have 2 bytes a weight, which hold large * numbers of 4 bytes.
    waiting = -(-2 * large * numbers // width)
    last = (classes - waiting) // large * large
    return [Group(large, 0, last, True), Group(size, last, classes, False)]


def memory(group: Group, rows: Tensor, by_weight: Tensor | None) -> Tensor:
    """Return float32 numbers for the logits of a chunk and, if there is one, its part of a gradient.

    Args:
        group: the chunks.
        rows: (rows, width).
        by_weight: the gradient of the weight, where it is wanted and there already.
    """
    if by_weight is None:
        return rows.new_empty(len(rows) * group.size, dtype=torch.float32)
    numbers = (len(rows) + rows.shape[1]) * group.size
    if group.lent:
        return by_weight[group.last :].view(-1)[: 2 * numbers].view(torch.float32)
    return rows.new_empty(numbers, dtype=torch.float32)
