"""Batches of a task's data, in an order that the seed and the epoch's number decide alone."""

from __future__ import annotations

from ravine.training.batches.choice import (
    BatchSize,
    check_batch_size,
    evaluation_batches,
    training_batches,
)
from ravine.training.batches.loaders import DatasetBatches, LoaderBatches
from ravine.training.batches.protocol import Batch, Batches
from ravine.training.batches.sources import SourceBatches
from ravine.training.batches.tensors import TensorBatches

__all__ = [
    "Batch",
    "BatchSize",
    "Batches",
    "DatasetBatches",
    "LoaderBatches",
    "SourceBatches",
    "TensorBatches",
    "check_batch_size",
    "evaluation_batches",
    "training_batches",
]
