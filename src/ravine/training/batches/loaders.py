"""Batches of a torch Dataset or DataLoader."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ravine.data.order import epoch_order
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.tasks.checks import rows_of
from ravine.training.batches.protocol import Batch, Stateless, too_few
from ravine.training.batches.randomness import Apart, generators_of, samplers_of


class LoaderBatches(Stateless):
    """Batches of a DataLoader, moved to the device.

    The loader is told nothing but the epoch (``set_epoch`` of its samplers and its dataset, where
    they have one, from 0 as torch counts). Every batch is drawn with the global generators and
    those of the loader seeded by (seed, epoch, batch), so that its shuffling, a sampler of one's
    own and the augmentation in a dataset are the same whenever that batch is drawn; worker
    processes begin with seeds of (seed, epoch, worker), for torch, Python and NumPy. All states
    are put back after each batch.

    Skipping draws the batches and drops them: this is exact for every loader, and takes the time
    of reading. The ``state_dict`` of a loader that has one is not used: what it holds is for
    its author to say, and this is not. ``persistent_workers`` start anew with every epoch, since
    nothing could seed them otherwise.

    Raises:
        ArgumentError: the workers' batches come in the order in which they happen to be ready.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device, seed: int) -> None:
        if loader.num_workers and not getattr(loader, "in_order", True):
            raise ArgumentError(
                "the loader gives its batches in the order in which its workers finish",
                got="in_order=False",
                expected="an order that can be repeated",
                do="leave in_order out of the DataLoader",
            )
        if loader.persistent_workers:
            loader = copy.copy(loader)  # the caller's own stays as it is
            vars(loader)["persistent_workers"] = False
        self._loader = loader
        self._device = device
        self._seed = seed
        self._apart = Apart(generators_of(loader))
        self.rows = rows_of(loader)
        self.steps = None if self.rows is None else len(loader)
        whole = math.ceil(self.rows / self.steps) if self.rows and self.steps else 1
        self.size = loader.batch_size or whole  # a batch_sampler does not tell

    def epoch(self, number: int, skip: int = 0) -> Generator[Batch]:
        """Return the batches of an epoch; what is skipped is drawn and dropped now."""
        for one in (*samplers_of(self._loader), self._loader.dataset):
            if callable(tell := getattr(one, "set_epoch", None)):
                tell(number - 1)
        with self._apart.seeded(self._seed, number):
            batches = iter(self._loader)
        for place in range(skip):
            if self._drawn(batches, number, place) is None:
                raise too_few(number, skip, place)
        return self._epoch(batches, number, skip)

    def _epoch(self, batches: Iterator[Any], number: int, place: int) -> Generator[Batch]:
        while (batch := self._drawn(batches, number, place)) is not None:
            yield on(self._device, batch)
            place += 1

    def _drawn(self, batches: Iterator[Any], number: int, place: int) -> tuple[Any] | None:
        with self._apart.seeded(self._seed, number, place):
            try:
                return (next(batches),)
            except StopIteration:
                return None


class DatasetBatches(Stateless):
    """Batches of a Dataset with rows by number, read in this process and moved to the device.

    A batch is read with the global generators seeded by (seed, epoch, batch). What is skipped is
    not read.

    Args:
        data: has ``__getitem__`` and ``__len__``.
        size: rows of a batch.
        device: where the model is.
        seed: of the run.
        shuffled: whether the rows come in an order of the epoch, or in their own.
    """

    def __init__(
        self, data: Dataset[Any], size: int, device: torch.device, seed: int, *, shuffled: bool
    ) -> None:
        rows = rows_of(data)
        if rows is None:
            raise ArgumentError(
                "the Dataset does not tell its length",
                got=f"{type(data).__name__} without __len__",
                do="add __len__, or derive it from torch.utils.data.IterableDataset",
            )
        self._data = data
        self._rows = rows
        self.rows: int | None = rows
        self.size = size
        self._steps = math.ceil(rows / size)
        self.steps: int | None = self._steps
        self._device = device
        self._seed = seed
        self._shuffled = shuffled
        self._apart = Apart()

    def epoch(self, number: int, skip: int = 0) -> Generator[Batch]:
        """Return the batches of an epoch; what is skipped is not read."""
        if skip > self._steps:
            raise too_few(number, skip, self._steps)
        if callable(tell := getattr(self._data, "set_epoch", None)):
            tell(number - 1)
        return self._epoch(number, skip)

    def _epoch(self, number: int, skip: int) -> Generator[Batch]:
        order = torch.arange(self._rows)
        if self._shuffled:
            order = epoch_order(self._rows, self._seed, number)
        firsts = range(skip * self.size, self._rows, self.size)
        chosen: Any = (order[first : first + self.size].tolist() for first in firsts)
        with self._apart.seeded(self._seed, number):
            batches = iter(DataLoader(self._data, batch_sampler=chosen))
        for place in range(skip, self._steps):
            with self._apart.seeded(self._seed, number, place):
                batch = next(batches)
            yield on(self._device, (batch,))


def on(device: torch.device, drawn: tuple[Any]) -> Batch:
    """Return a batch on the device, or raise if it is no pair of tensors."""
    (batch,) = drawn
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
    return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
