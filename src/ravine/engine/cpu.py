"""The CPU executor: one compiled pass over all the tensors of a program.

A kernel finds its work behind the address of eight int64 numbers, the head:

====  ==========================================================================================
 0    the next chunk (a shared counter, set to 0 before each run)
 1    how many chunks there are
 2    address of the chunks: tensor, offset, length in elements
 3    address of the tensors' addresses, variable by variable
 4    address of the row of scalars that each tensor uses
 5    address of the scalars (float64), row by row
 6    how many tensors there are
 7    address of the totals of the chunks (float64), total by total
====  ==========================================================================================
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch

from ravine.engine import kernel_cache, launch
from ravine.engine.cpu_pool import Kernel
from ravine.engine.cpu_source import kernel_source
from ravine.engine.lean import Stored
from ravine.engine.program import Specialised

SMALLEST_CHUNK, LARGEST_CHUNK = 32_768, 524_288
"""Elements of a chunk: small enough to share evenly, large enough for the processor to stream.

42M weights with Adam, two cores: 13.4 ms in chunks of 32k, 12.4 of 128k, 12.1 of 512k.
"""

PARALLEL_FROM = 65_536
"""Elements from which on several threads pay for their start-up."""

_LARGEST = {dtype: torch.finfo(dtype).max for dtype in (torch.float32, torch.float64)}


@lru_cache(maxsize=1)
def unavailable() -> str:
    """Return why the CPU executor cannot be used, or an empty string."""
    try:
        if importlib.util.find_spec("llvmlite") is None:
            return "llvmlite is not installed"
        import llvmlite.binding  # noqa: F401
    except ImportError as error:
        return f"llvmlite cannot be imported ({error})"
    return ""


@cache
def _compiled(source: str) -> Kernel:
    return Kernel(*kernel_cache.function(source, "kernel"))


def compiled(
    program: Specialised, types: Mapping[str, Stored], totals: tuple[str, ...] = ()
) -> Kernel:
    """Return the kernel of a program for these storage types, compiled or from the cache."""
    return _compiled(kernel_source(program, types, totals))


class Launch(launch.Launch):
    """A compiled CPU kernel and its tables; totals are added in the order of the chunks."""

    def __init__(
        self,
        kernel: Kernel,
        sizes: Sequence[int],
        *,
        arrays: int,
        slots: int,
        rows: int = 1,
        totals: int = 0,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(sizes, slots, totals)
        self._tensors = len(self.sizes)
        self._addresses: Any = (ctypes.c_int64 * max(1, arrays * self._tensors))()
        self._rows: Any = (ctypes.c_int64 * max(1, self._tensors))()
        self._scalars: Any = (ctypes.c_double * max(1, rows * slots))()
        self._head = (ctypes.c_int64 * 8)()
        self._head[3] = ctypes.addressof(self._addresses)
        self._head[4] = ctypes.addressof(self._rows)
        self._head[5] = ctypes.addressof(self._scalars)
        self._head[6] = self._tensors
        self._head_address = ctypes.addressof(self._head)
        self._kernel = kernel
        self.select(range(self._tensors))

    def _divide(self, tensors: Sequence[int]) -> None:
        # By the amount of work alone, so that totals are the same on any number of threads; a whole
        # number of the blocks that share a scale (`ravine.engine.lean.BLOCK`).
        chunk = min(max(SMALLEST_CHUNK, self.elements // 64 // 1024 * 1024), LARGEST_CHUNK)
        table = [
            (tensor, start, min(chunk, self.sizes[tensor] - start))
            for tensor in tensors
            for start in range(0, self.sizes[tensor], chunk)
        ]
        self._chunks: Any = (ctypes.c_int64 * max(1, 3 * len(table)))(*chain.from_iterable(table))
        self._sums: Any = (ctypes.c_double * max(1, self._totals * len(table)))()
        self._head[1] = len(table)
        self._head[2] = ctypes.addressof(self._chunks)
        self._head[7] = ctypes.addressof(self._sums)
        parallel = self.elements >= PARALLEL_FROM and len(table) > 1
        self._run = self._kernel.parallel if parallel else self._kernel.serial

    def set_addresses(self, variable: int, addresses: Sequence[int]) -> None:
        start = variable * self._tensors
        self._addresses[start : start + self._tensors] = addresses

    def set_rows(self, rows: Sequence[int]) -> None:
        self._rows[:] = rows

    def set_scalars(self, row: int, values: Sequence[float]) -> None:
        start = row * self._slots
        self._scalars[start : start + self._slots] = values

    def set_scalar(self, slot: int, value: torch.Tensor) -> None:
        self._scalars[slot] = value.item()

    def set_all_scalars(self, table: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        np.frombuffer(self._scalars)[: table.size] = table.ravel()

    def set_scalar_table(self, table: torch.Tensor) -> None:
        self.set_all_scalars(table.numpy())

    def grow_scalars(self, rows: int) -> None:
        if rows * self._slots > len(self._scalars):
            self._scalars = (ctypes.c_double * (rows * self._slots))()
            self._head[5] = ctypes.addressof(self._scalars)

    def run(self) -> None:
        self._head[0] = 0
        self._run(self._head_address)

    def totals(self) -> list[float]:
        return [self._added(k) for k in range(self._totals)]

    def total(self, total: int, scale: float | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        found = float(self._added(total) * scale)
        if abs(found) > _LARGEST[dtype]:  # torch raises where it should round to infinity
            found = math.copysign(math.inf, found)
        return torch.scalar_tensor(found, dtype=dtype, device="cpu")

    def any(self, totals: Sequence[int]) -> bool:
        return any(self._added(k) != 0 for k in totals)

    def _added(self, total: int) -> float:
        count = self._head[1]
        found: float = sum(self._sums[total * count : (total + 1) * count])
        return found

    def tensor_totals(self) -> torch.Tensor:
        count = self._head[1]
        sums = np.frombuffer(self._sums)[: self._totals * count].reshape(self._totals, count)
        owners = np.frombuffer(self._chunks, dtype=np.int64)[: 3 * count : 3]
        each = [np.bincount(owners, weights=one, minlength=self._tensors) for one in sums]
        return torch.from_numpy(np.array(each))
