"""The averaged weights, shown in the place of the weights for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ravine.errors import ArgumentError
from ravine.optim.options import AVERAGE


@contextlib.contextmanager
def in_place(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put the averages that an optimizer keeps in the place of its weights."""
    if all(group["average"] is None for group in optimizer.param_groups):
        raise ArgumentError(
            "no average of the weights is kept",
            where=type(optimizer).__name__,
            do="make the optimizer with average=0.999",
        )
    from ravine.regularize.weight_averaging import swapped  # a tenth of a second, for some

    weights = [w for group in optimizer.param_groups for w in group["params"]]
    held = optimizer.state
    pairs = [(w, held[w][AVERAGE]) for w in weights if AVERAGE in held.get(w, {})]
    with swapped(pairs):
        yield
