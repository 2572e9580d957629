"""The tables of a GPU's launch: on the host, and their copy on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_BUFFERS = 4
"""Pinned buffers taken in turn: how many runs the host may be ahead before it waits."""


class Tables:
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

    @torch.inference_mode(False)  # they are written to outside of it, too
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
