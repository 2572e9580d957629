"""How many threads a run takes: one where a step is so small that sharing it costs more.

Threads that share a step of some tenths of a millisecond meet after every matrix product; where
another process holds a core they wait for it each time. Measured on two busy cores, the run on
digits took 0.4 s with one thread and between 3 and 32 s with two; on quiet ones a step of it
took 0.53 ms with one and 0.72 ms with two (in another hour 0.69 and 0.61: two were quicker), and
steps of four times the work took the same time.

The number follows from the sizes alone and is never measured, so that the same run has the same
bits wherever it is repeated: another number of threads adds up in another order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ravine.tasks import Task
from ravine.training.batches import BatchSize

SMALL = 5e7
"""Floating-point operations a step (about a millisecond of one core) below which one is taken."""


def work(model: nn.Module, inputs: Tensor, rows: int) -> float:
    """Return about how many operations a step takes: 6 a weight and place where it is used.

    A weight is used once a row of a table, once a token, once a pixel; the larger is assumed.

    >>> work(nn.Linear(10, 1, bias=False), torch.zeros(8, 10), rows=4)
    240.0
    """
    shape = inputs.shape[1:]
    places = 1
    if not inputs.is_floating_point():
        places = shape.numel()
    elif len(shape) > 1:
        places = max(shape.numel() // max(shape[0], 1), shape.numel() // max(shape[-1], 1))
    return 6.0 * sum(p.numel() for p in model.parameters()) * rows * places


@contextlib.contextmanager
def threads_for(task: Task, batch_size: BatchSize, device: torch.device) -> Iterator[None]:
    """Run the block with one thread if a step is small, with all of torch's otherwise.

    Data in a Dataset or DataLoader does not tell its shape beforehand: nothing changes then.
    """
    before, small = torch.get_num_threads(), False
    if device.type == "cpu" and isinstance(task.train, tuple):
        inputs = task.train[0]
        rows = len(inputs) if batch_size == "all" else min(batch_size, len(inputs))
        small = work(task.model, inputs, rows) < SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)
