"""Batches of the training data, in an order that depends on the seed alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.tasks.checks import Data, rows_of

BatchSize = int | Literal["all"]
Batch = tuple[Tensor, Tensor]

_SHUFFLE_WHOLE = 64 << 20
"""Bytes up to which an epoch's data is put in order at once: a slice then costs 1 us, not 5."""

_LOOKED_AT = 1 << 16
"""Numbers of input in a batch that is only looked at, where the training batches are smaller."""


def check_batch_size(batch_size: object) -> BatchSize:
    """Return the batch size, or raise."""
    if batch_size == "all":
        return "all"
    if isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1:
        return batch_size
    raise ArgumentError(
        "the batch size cannot be used",
        got=repr(batch_size),
        expected='an integer >= 1, or "all" for batch gradient descent',
    )


class TensorBatches:
    """Batches of tensors in memory: no loader, no worker, no copy but the rows themselves."""

    def __init__(
        self, data: Batch, batch_size: BatchSize, device: torch.device, seed: int | None
    ) -> None:
        self._inputs, self._targets = (tensor.to(device) for tensor in data)
        self.rows: int | None = len(self._inputs)
        self._rows = self.rows
        self.size = self._rows if batch_size == "all" else min(batch_size, self._rows)
        self.steps: int | None = math.ceil(self._rows / self.size)
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Batch]:
        inputs, targets, size = self._inputs, self._targets, self.size
        if size == self._rows:
            yield inputs, targets
            return
        order = None
        if self._generator is not None:
            order = torch.randperm(self._rows, generator=self._generator).to(inputs.device)
            if inputs.nbytes + targets.nbytes <= _SHUFFLE_WHOLE:
                inputs, targets, order = inputs[order], targets[order], None
        if order is None:
            yield from zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
            return
        for chosen in torch.split(order, size):
            yield inputs[chosen], targets[chosen]


class LoaderBatches:
    """Batches of a DataLoader, moved to the device."""

    def __init__(self, loader: DataLoader[Any], device: torch.device) -> None:
        self._loader = loader
        self._device = device
        self.rows = rows_of(loader)
        self.steps = None if self.rows is None else len(loader)
        whole = math.ceil(self.rows / self.steps) if self.rows and self.steps else 1
        self.size = loader.batch_size or whole  # a batch_sampler does not tell

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if not (
                isinstance(batch, (tuple, list))
                and len(batch) == 2
                and all(isinstance(part, Tensor) for part in batch)
            ):
                got = type(batch).__name__
                if isinstance(batch, (tuple, list)):
                    got += f" of {', '.join(type(part).__name__ for part in batch) or 'nothing'}"
                raise ArgumentTypeError(
                    "a batch of the data is not a pair of tensors",
                    got=got,
                    expected="(inputs, targets)",
                    do="give the DataLoader a collate_fn that returns a pair",
                )
            inputs, targets = batch
            yield (
                inputs.to(self._device, non_blocking=True),
                targets.to(self._device, non_blocking=True),
            )


Batches = TensorBatches | LoaderBatches


def training_batches(data: Data, batch_size: BatchSize, device: torch.device, seed: int) -> Batches:
    """Return the batches of an epoch, every time in another order that the seed decides."""
    if isinstance(data, tuple):
        return TensorBatches(data, batch_size, device, seed)
    if isinstance(data, DataLoader):
        return LoaderBatches(data, device)
    return LoaderBatches(_loader(data, batch_size, seed), device)


def evaluation_batches(data: Data, device: torch.device, trained: int) -> Batches:
    """Return the batches of data that is only looked at, in its own order.

    Args:
        data: what is looked at; a DataLoader keeps its own batches.
        device: where the model is.
        trained: the rows of a training batch, which are known to fit into memory. Batches are
            larger than that only where they are small all the same.
    """
    if isinstance(data, tuple):
        small = _LOOKED_AT // max(data[0][0].numel(), 1)
        return TensorBatches(data, max(trained, min(small, 1024)), device, None)
    if isinstance(data, DataLoader):
        return LoaderBatches(data, device)
    return LoaderBatches(DataLoader(data, batch_size=max(trained, 64)), device)


def _loader(data: Dataset[Any], batch_size: BatchSize, seed: int) -> DataLoader[Any]:
    rows = rows_of(data)
    if batch_size == "all" and rows is None:
        raise ArgumentError(
            'batch_size="all" needs data of known length',
            got=type(data).__name__,
            do="give a number",
        )
    size = rows if batch_size == "all" else batch_size
    shuffle = not isinstance(data, IterableDataset) and batch_size != "all"
    return DataLoader(
        data,
        batch_size=size,
        shuffle=shuffle,
        generator=torch.Generator().manual_seed(seed),
    )
