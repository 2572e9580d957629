"""The weights that a run is evaluated with, where they are an average of those it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ravine.optim import Optimizer
from ravine.regularize import Part, reestimate_batch_norm
from ravine.regularize.weight_averaging import has_batch_norm, swapped
from ravine.training.batches import Batches
from ravine.training.random_state import random_state, set_random_state


@contextlib.contextmanager
def averaged(
    model: nn.Module, optimizer: torch.optim.Optimizer, parts: Sequence[Part], batches: Batches
) -> Iterator[None]:
    """Put averaged weights in place, if there are any, with the batch norm that fits them.

    Statistics of batch norm are taken over one pass of the training data; those of training come
    back with the weights.
    """
    pairs = [pair for part in parts for pair in part.averages()]
    keeps = isinstance(optimizer, Optimizer) and optimizer.averages
    if not (pairs or keeps):
        yield
        return
    with contextlib.ExitStack() as stack:
        if keeps:
            stack.enter_context(optimizer.averaged())  # type: ignore[attr-defined]
        stack.enter_context(swapped(pairs))
        if has_batch_norm(model):
            stack.enter_context(swapped([(b, b.clone()) for b in model.buffers()]))
            before = random_state()
            reestimate_batch_norm(model, (inputs for inputs, _ in batches.epoch(1)))
            set_random_state(before)
        yield
