"""Which batches a task's data gets."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, IterableDataset

from ravine.data import Source
from ravine.errors import ArgumentError
from ravine.tasks.checks import Data, rows_of
from ravine.training.batches.loaders import DatasetBatches, LoaderBatches
from ravine.training.batches.protocol import Batches
from ravine.training.batches.sources import SourceBatches
from ravine.training.batches.tensors import TensorBatches

BatchSize = int | Literal["all"]

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


def training_batches(data: Data, batch_size: BatchSize, device: torch.device, seed: int) -> Batches:
    """Return the batches of an epoch, every time in another order that the seed decides."""
    if isinstance(data, tuple):
        return TensorBatches(data, batch_size, device, seed)
    if isinstance(data, DataLoader):
        return LoaderBatches(data, device, seed)
    rows = rows_of(data)
    if batch_size == "all" and rows is None:
        raise ArgumentError(
            'batch_size="all" needs data of known length',
            got=type(data).__name__,
            do="give a number",
        )
    size = rows if batch_size == "all" and rows is not None else batch_size
    assert isinstance(size, int)
    if isinstance(data, Source):
        return SourceBatches(data, size, device, None if batch_size == "all" else seed)
    if isinstance(data, IterableDataset):
        return LoaderBatches(_loader(data, size), device, seed)
    return DatasetBatches(data, size, device, seed, shuffled=batch_size != "all")


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
        return LoaderBatches(data, device, 0)
    size = max(trained, 64)
    if isinstance(data, Source):
        return SourceBatches(data, size, device, None)
    if isinstance(data, IterableDataset):
        return LoaderBatches(_loader(data, size), device, 0)
    return DatasetBatches(data, size, device, 0, shuffled=False)


def _loader(data: IterableDataset[Any], size: int) -> DataLoader[Any]:
    return DataLoader(data, batch_size=size)
