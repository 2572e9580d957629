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
from ravine.engine.lean import Stored
from ravine.engine.program import Specialised

BLOCK = 1024
"""Elements of a program instance: eight a thread, two loads of 16 bytes a float32 tensor."""

WARPS = 4
"""Warps of a program instance."""

_BUFFERS = 4
"""Pinned buffers taken in turn: how many runs the host may be ahead before it waits."""

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
        self._tables = _Tables(len(self.sizes), arrays + RECORD_TAIL, rows * slots, device)
        self._tables.records[:, arrays + 2] = self.sizes
        self.select(range(len(self.sizes)))

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
            self._tables.enter(self._owners, self._sums)
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
            self._tables.enter(self._owners, self._sums)
            return self._sums.sum(0).tolist()

    def total(self, total: int, scale: float | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if self._sums is None:
            return torch.zeros((), dtype=dtype, device=self._device)
        with self._on_device():
            self._tables.enter(self._owners, self._sums)
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
            self._tables.enter(self._owners, self._sums, *self._several)
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
        """Make the table of the blocks' owners, and room for their totals."""
        if len(self._chosen) == 1:  # as for a loss: no copy, which the host would wait for
            owner, kind = int(self._chosen[0]), torch.int32
            self._owners = torch.full((self._blocks,), owner, dtype=kind, device=self._device)
        else:
            chosen = torch.from_numpy(self._chosen).to(self._device)
            counts = torch.from_numpy(self._counts).to(self._device)
            self._several = (chosen, counts)
            self._owners = torch.repeat_interleave(chosen, counts, output_size=self._blocks)
        if self._totals:
            shape = (self._blocks, self._totals)
            self._sums = torch.zeros(shape, dtype=torch.float64, device=self._device)

    def _on_device(self) -> AbstractContextManager[object]:
        """Make the tensors' device the current one, where Triton launches."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


class _Tables:
    """Records and scalars in one stretch of host memory, and their copy on the device."""

    def __init__(self, tensors: int, width: int, scalars: int, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._turn = 0
        self._make(np.zeros((tensors, width), dtype=np.int64), scalars)

    def _make(self, records: np.ndarray[Any, np.dtype[np.int64]], scalars: int) -> None:
        # The scalars begin at a multiple of 16 bytes: Triton compiles anew for another alignment.
        self._start = records.size + records.size % 2
        self._host = np.zeros(self._start + max(1, scalars), dtype=np.int64)
        self.records = self._host[: records.size].reshape(records.shape)
        self.records[:] = records
        self.scalars = self._host[self._start :].view(np.float64)
        self.changed = True
        self._copy: torch.Tensor | None = None  # made at the next run, on its stream
        self._pinned: list[tuple[torch.Tensor, torch.cuda.Event]] = []

    def grow(self, scalars: int) -> None:
        """Make room for at least this many scalars; those there are lost."""
        if scalars > len(self.scalars):
            self._make(self.records, scalars)

    def enter(self, *others: torch.Tensor | None) -> None:
        """Make the current stream wait for the last run, if that was on another one."""
        if self._device.type != "cuda":
            return
        stream = torch.cuda.current_stream(self._device)
        if self._stream is not None and self._stream != stream:
            stream.wait_stream(self._stream)
            for tensor in (self._copy, *others):
                if tensor is not None:
                    tensor.record_stream(stream)
        self._stream = stream

    def send(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return records and scalars on the device, as they are now on the host."""
        if self._copy is None:
            self._copy = self._allocate()
        if self.changed and self._pinned:
            pinned, copied = self._pinned[self._turn]
            self._turn = (self._turn + 1) % _BUFFERS
            copied.synchronize()  # this buffer's last copy, several runs ago, may not be over
            pinned.numpy()[:] = self._host
            self._copy.copy_(pinned, non_blocking=True)
            copied.record(self._stream)
        self.changed = False
        return self._copy[: self._start], self._copy[self._start :].view(torch.float64)

    @torch.inference_mode(False)  # as above
    def _allocate(self) -> torch.Tensor:
        if self._device.type != "cuda":
            return torch.from_numpy(self._host)  # the interpreter reads the host's own table
        self._pinned = [
            (
                torch.empty(len(self._host), dtype=torch.int64, device="cpu", pin_memory=True),
                torch.cuda.Event(),  # type: ignore[no-untyped-call]
            )
            for _ in range(_BUFFERS)
        ]
        return torch.empty(len(self._host), dtype=torch.int64, device=self._device)
