"""Large result buffers used again: a fresh one costs more in page faults than the loss in arithmetic.

Filling 32 MB of fresh memory takes the system about 3 ms to hand out page by page; the pass itself takes
1.5 ms. A training loop drops the gradient of the loss before the next step, so the same memory can
serve again. A buffer is handed out anew only when nothing else refers to its storage any more.
"""

from __future__ import annotations

import sys
import threading

import torch
from torch import Tensor

SMALLEST = 1 << 20
"""Bytes from which a buffer is worth keeping; smaller ones the allocator keeps by itself."""

KEPT = 4
"""How many buffers are kept at most; the longest unused one goes first."""

_lock = threading.Lock()
_kept: list[torch.UntypedStorage] = []
_count = getattr(torch._C, "_storage_Use_Count", None)


def take(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor in the shape and memory order of ``like``, which is dense."""
    size = like.numel() * dtype.itemsize
    if size < SMALLEST or _count is None or like.device.type != "cpu":
        return torch.empty_like(like, dtype=dtype, requires_grad=False)
    with _lock:
        for place in range(len(_kept)):
            if _is_idle(place, size):
                storage = _kept.pop(place)
                break
        else:
            # A tensor made in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                storage = torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()
        _kept.append(storage)
        del _kept[:-KEPT]
        # Not a view of a tensor that is kept: views made here could not be changed in place.
        empty = torch.empty(0, dtype=dtype, device="cpu")  # whatever the default device is
        return empty.set_(storage, 0, like.shape, like.stride())


def _is_idle(place: int, size: int) -> bool:
    """Whether a kept buffer has this size and is in nobody's hands, nor in another process's."""
    assert _count is not None
    storage = _kept[place]
    # The list, this name and the call's argument know the Python object; it alone knows the memory.
    return (
        storage.nbytes() == size
        and _count(storage._cdata) == 1
        and sys.getrefcount(storage) <= 3
        and not storage.is_shared()
    )
