"""What the compiled executors have in common: a kernel, and the tables that it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class Launch(ABC):
    """A kernel with the tables that it reads, made once and run many times.

    Those of `ravine.engine.cpu` and `ravine.engine.gpu` are made by ``(kernel, sizes, *, arrays, slots,
    rows=1, totals=0, device=None)``; what the tables look like is said there.

    Args:
        kernel: what to run.
        sizes: elements of each tensor.
        arrays: how many variables live in memory.
        slots: how many scalars a row has.
        rows: how many rows of scalars there are at most.
        totals: how many totals the kernel writes for each part of a tensor that it takes at once.
        device: where the tensors are; the executor's own if not given.
    """

    def __init__(self, sizes: Sequence[int], slots: int, totals: int) -> None:
        self.sizes = list(sizes)
        self.elements = 0
        """Of the selected tensors, all together."""
        self._slots = slots
        self._totals = totals

    def select(self, tensors: Sequence[int]) -> None:
        """Work on these tensors only, until the next selection."""
        self.elements = sum(self.sizes[tensor] for tensor in tensors)
        self._divide(tensors)

    @abstractmethod
    def _divide(self, tensors: Sequence[int]) -> None:
        """Fill the table of what is worked on at once."""

    @abstractmethod
    def set_addresses(self, variable: int, addresses: Sequence[int]) -> None:
        """Set where a variable of each tensor begins."""

    @abstractmethod
    def set_rows(self, rows: Sequence[int]) -> None:
        """Set which row of scalars each tensor uses (0 at the start)."""

    @abstractmethod
    def set_scalars(self, row: int, values: Sequence[float]) -> None:
        """Set a row of scalars."""

    @abstractmethod
    def set_scalar(self, slot: int, value: torch.Tensor) -> None:
        """Set a scalar of the first row to a number that may lie on the device.

        For one run: before another one the row is to be set again.
        """

    @abstractmethod
    def set_all_scalars(self, table: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Set as many rows of scalars as the table has."""

    @abstractmethod
    def set_scalar_table(self, table: torch.Tensor) -> None:
        """Set all rows of scalars to a table (rows, scalars) that may lie on the device.

        For one run, as `set_scalar`.
        """

    @abstractmethod
    def grow_scalars(self, rows: int) -> None:
        """Make room for at least this many rows of scalars; those there are lost."""

    @abstractmethod
    def run(self) -> None:
        """Run the kernel once over the selected tensors."""

    @abstractmethod
    def totals(self) -> list[float]:
        """Return each total of the last run, added up in a fixed order."""

    @abstractmethod
    def total(self, total: int, scale: float | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a total of the last run times a number, rounded once, where the tensors are.

        The host does not wait for it.
        """

    @abstractmethod
    def any(self, totals: Sequence[int]) -> bool:
        """Whether one of these totals of the last run is not 0."""

    @abstractmethod
    def tensor_totals(self) -> torch.Tensor:
        """Return each total of the last run for each tensor, 0 where one was not selected.

        (totals, tensors) in float64, where the tensors are; the host does not wait for it.
        """
