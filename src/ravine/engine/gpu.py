"""The GPU executor: one Triton launch over all the tensors of a program.

A program instance works on one block of `BLOCK` elements of one tensor. It finds its work in three
tables on the device:

owners   int32, one a block: which tensor the block belongs to. Made on the device when the
         selection changes (4 bytes for every 1024 weights: 4 MB for a billion).
records  int64, one a tensor: the columns of `ravine.engine.lean.layout` (the addresses of its
         variables), the row of scalars it uses, its first block, and its number of elements. The
         block's place in the tensor follows from these.
scalars  float64, row by row.

Records and scalars lie in one stretch of memory, so that a step sends them in one copy from pinned
memory which the host does not wait for. Under Triton's interpreter the same kernels run on tensors
of the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from operator import or_
from typing import Any

import numpy as np
import torch

from ravine.engine import kernel_cache, launch
from ravine.engine.gpu_source import RECORD_TAIL, kernel_source
from ravine.engine.gpu_tables import Tables
from ravine.engine.lean import Stored
from ravine.engine.program import Specialised

BLOCK = 1024
"""Elements of a program instance: eight a thread, two loads of 16 bytes a float32 tensor."""

WARPS = 4
"""Warps of a program instance."""

_OLDEST = (7, 0)
"""Compute capability that Triton needs."""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@lru_cache(maxsize=1)
def unavailable() -> str:
    """Return why the GPU executor cannot be used, or an empty string.

    Triton is not imported where there is nothing for it to run on.
    """
    if interpreted():
        if torch.cuda.is_available():  # whose addresses the interpreter would read as the host's
            return "TRITON_INTERPRET is set, and Triton's interpreter cannot reach the GPU"
    elif not torch.cuda.is_available():
        return "there is no GPU that PyTorch can use"
    else:
        capability = torch.cuda.get_device_capability()
        if torch.version.hip is None and capability < _OLDEST:
            had, needed = (".".join(map(str, pair)) for pair in (capability, _OLDEST))
            return f"the GPU has compute capability {had}, Triton needs {needed}"
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return ""


@dataclass(frozen=True)
class Kernel:
    """A Triton function made from a program; it is compiled when it is run first."""

    function: Any


@cache
def _compiled(source: str) -> Kernel:
    return Kernel(kernel_cache.load(source, "gpu").kernel)


def compiled(
    program: Specialised, types: Mapping[str, Stored], totals: tuple[str, ...] = ()
) -> Kernel:
    """Return the kernel of a program for these storage types."""
    return _compiled(kernel_source(program, types, totals))


class Launch(launch.Launch):
    """A Triton kernel and its tables on a device: the current CUDA device if none is given.

    A run goes to the current stream of that device; totals wait for it.
    """

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
        self._kernel = kernel
        self._arrays = arrays
        self._misaligned = [0] * arrays
        self._given: list[tuple[slice, torch.Tensor]] = []  # scalars that lie on the device
        if interpreted():
            device = torch.device("cpu")
        elif device is None or device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self._device = device
        self._tables = Tables(len(self.sizes), arrays + RECORD_TAIL, rows * slots, device)
        self._all_owners: torch.Tensor | None = None  # with room for more blocks than there are now
        self._all_sums: torch.Tensor | None = None
        self._only: int | None = None  # the owner of all blocks in that room
        self.resize(sizes)

    def resize(self, sizes: Sequence[int]) -> None:
        self._tables.records[:, self._arrays + 2] = sizes
        super().resize(sizes)

    def _divide(self, tensors: Sequence[int]) -> None:
        chosen = list(tensors)
        blocks = np.array([-(-self.sizes[tensor] // BLOCK) for tensor in chosen], dtype=np.int64)
        self._chosen = np.array(chosen, dtype=np.int32)
        self._counts = blocks
        self._blocks = int(blocks.sum())
        self._tables.records[self._chosen, self._arrays + 1] = np.cumsum(blocks) - blocks
        self._tables.changed = True
        self._owners: torch.Tensor | None = None  # made at the next run, on its stream
        self._several: tuple[torch.Tensor, ...] = ()  # if chosen: which, and their blocks
        self._sums: torch.Tensor | None = None

    def set_addresses(self, variable: int, addresses: Sequence[int]) -> None:
        self._tables.records[:, variable] = addresses
        self._misaligned[variable] = reduce(or_, addresses, 0) & 15
        self._tables.changed = True

    def set_rows(self, rows: Sequence[int]) -> None:
        self._tables.records[:, self._arrays] = rows
        self._tables.changed = True

    def set_scalars(self, row: int, values: Sequence[float]) -> None:
        start = row * self._slots
        self._tables.scalars[start : start + self._slots] = values
        self._tables.changed = True

    def set_scalar(self, slot: int, value: torch.Tensor) -> None:
        self._given.append((slice(slot, slot + 1), value))

    def set_all_scalars(self, table: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        self._tables.scalars[: table.size] = table.ravel()
        self._tables.changed = True

    def set_scalar_table(self, table: torch.Tensor) -> None:
        self._given.append((slice(0, table.numel()), table.reshape(-1)))

    def grow_scalars(self, rows: int) -> None:
        self._tables.grow(rows * self._slots)

    def run(self) -> None:
        if self._blocks == 0:
            return
        with self._on_device():
            self._enter()
            if self._owners is None:
                self._own()
            records, scalars = self._tables.send()
            for slots, value in self._given:
                scalars[slots].copy_(value)
            self._given.clear()
            self._kernel.function[(self._blocks,)](
                self._owners,
                records,
                scalars,
                scalars if self._sums is None else self._sums,
                ALIGNED=not any(self._misaligned),
                BLOCK=BLOCK,
                num_warps=WARPS,
                enable_fp_fusion=True,  # as on the CPU; a default that Triton is about to change
            )

    def totals(self) -> list[float]:
        if self._sums is None:
            return [0.0] * self._totals
        with self._on_device():
            self._enter()
            return self._sums.sum(0).tolist()

    def total(self, total: int, scale: float | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if self._sums is None:
            return torch.zeros((), dtype=dtype, device=self._device)
        with self._on_device():
            self._enter()
            found = torch.empty((), dtype=dtype, device=self._device)
            # Multiplied in float64 and rounded where it is stored: one launch, not two.
            return torch.mul(self._sums[:, total].sum(), scale, out=found)

    def any(self, totals: Sequence[int]) -> bool:
        found = self.totals()
        return any(found[k] != 0 for k in totals)

    def tensor_totals(self) -> torch.Tensor:
        shape = (self._totals, len(self.sizes))
        found = torch.zeros(shape, dtype=torch.float64, device=self._device)
        if self._sums is None:
            return found
        with self._on_device():
            self._enter()
            if not self._several:
                found[:, int(self._chosen[0])] = self._sums.sum(0)
                return found
            chosen, lengths = self._several
            for one, sums in zip(found, self._sums.t().contiguous(), strict=True):
                # One tensor's blocks lie together; added in a fixed order, unlike with index_add.
                one[chosen] = torch.segment_reduce(sums, "sum", lengths=lengths)
        return found

    @torch.inference_mode(False)  # they are written to outside of it, too
    def _own(self) -> None:
        """Make the table of the blocks' owners, and room for their totals, or use what there is."""
        blocks, owners, sums = self._blocks, self._all_owners, self._all_sums
        only = int(self._chosen[0]) if len(self._chosen) == 1 else None
        if only is None:
            chosen = torch.from_numpy(self._chosen).to(self._device)
            counts = torch.from_numpy(self._counts).to(self._device)
            self._several = (chosen, counts)
            owners = torch.repeat_interleave(chosen, counts, output_size=blocks)
        elif owners is None or only != self._only or len(owners) < blocks:
            # As for a loss: no copy, which the host would wait for.
            owners = torch.full((blocks,), only, dtype=torch.int32, device=self._device)
        self._only, self._all_owners, self._owners = only, owners, owners
        if self._totals:
            if sums is None or len(sums) < blocks:
                shape = (blocks, self._totals)
                sums = torch.zeros(shape, dtype=torch.float64, device=self._device)
            self._all_sums, self._sums = sums, sums[:blocks]

    def _enter(self) -> None:
        """Make the current stream wait for the last run, if that was on another one."""
        self._tables.enter(self._all_owners, self._all_sums, *self._several)

    def _on_device(self) -> AbstractContextManager[object]:
        """Make the tensors' device the current one, where Triton launches."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()
