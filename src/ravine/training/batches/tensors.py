"""Batches of tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Literal

import torch
from torch import Tensor

from ravine.data.order import epoch_order
from ravine.training.batches.protocol import Batch, Stateless, too_few

_SHUFFLE_WHOLE = 64 << 20
"""Bytes up to which an epoch's data is put in order at once: a slice then costs 1 us, not 5."""


class TensorBatches(Stateless):
    """Batches of tensors in memory: no loader, no worker, no copy but the rows themselves.

    Args:
        data: inputs and targets, rows in the first dimension.
        batch_size: rows of a batch; ``"all"`` is one batch in the data's own order.
        device: where the model is; the data is moved there once.
        seed: decides the order of every epoch; None keeps the data's own order.
    """

    def __init__(
        self, data: Batch, batch_size: int | Literal["all"], device: torch.device, seed: int | None
    ) -> None:
        self._inputs, self._targets = (_aligned(tensor.to(device)) for tensor in data)
        self.rows: int | None = len(self._inputs)
        self._rows = self.rows
        self.size = self._rows if batch_size == "all" else min(batch_size, self._rows)
        self._steps = math.ceil(self._rows / self.size)
        self.steps: int | None = self._steps
        self._seed = seed

    def epoch(self, number: int, skip: int = 0) -> Generator[Batch]:
        """Return the batches of an epoch; what is skipped is not touched."""
        if skip > self._steps:
            raise too_few(number, skip, self._steps)
        return self._epoch(number, skip)

    def _epoch(self, number: int, skip: int) -> Generator[Batch]:
        inputs, targets, size = self._inputs, self._targets, self.size
        if size == self._rows:
            if not skip:
                yield inputs, targets
            return
        first = skip * size
        order = None
        if self._seed is not None:
            order = epoch_order(self._rows, self._seed, number).to(inputs.device)
            if inputs.nbytes + targets.nbytes <= _SHUFFLE_WHOLE:
                # All of it, whatever is skipped: products round by how rows lie in memory.
                inputs, targets, order = inputs[order], targets[order], None
            else:
                order = order[first:]
        if order is None:
            inputs, targets = inputs[first:], targets[first:]
            if skip < self._steps:
                yield from zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
            return
        for chosen in torch.split(order, size):
            yield inputs[chosen], targets[chosen]


def _aligned(tensor: Tensor) -> Tensor:
    """Return the tensor, moved to where torch's own allocations begin: the same in any process."""
    on_cpu = tensor.device.type == "cpu"
    return tensor.clone() if on_cpu and tensor.data_ptr() % 64 else tensor
