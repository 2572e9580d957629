"""Large result buffers used again: a fresh one costs more in page faults than the loss in arithmetic.

Filling 32 MB of fresh memory takes the system about 3 ms to hand out page by page; the pass itself takes
1.5 ms. A training loop drops the gradient of the loss before the next step, so the same memory can
serve again. A buffer is handed out anew only when nothing else refers to its storage any more.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

SMALLEST = 1 << 20
"""Bytes from which a buffer is worth keeping; smaller ones the allocator keeps by itself."""

KEPT = 4
"""How many buffers are kept at most."""

_lock = threading.Lock()
_kept: list[tuple[Tensor, torch.UntypedStorage, int]] = []


def take(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor in the shape and memory order of ``like``."""
    count = getattr(torch._C, "_storage_Use_Count", None)
    if count is None or like.device.type != "cpu" or like.numel() * dtype.itemsize < SMALLEST:
        return torch.empty_like(like, dtype=dtype, requires_grad=False)
    with _lock:
        for base, storage, idle in _kept:
            fits = base.numel() == like.numel() and base.dtype == dtype
            if fits and count(storage._cdata) == idle:
                return base.as_strided(like.shape, like.stride())
        base = torch.empty(like.numel(), dtype=dtype)
        storage = base.untyped_storage()
        _kept.append((base, storage, count(storage._cdata)))
        del _kept[:-KEPT]
        return base.as_strided(like.shape, like.stride())
