"""Memory for state in huge pages, tensor beside tensor.

A step reads and writes every state once, from one end to the other. In pages of 4 kB, wherever the
allocator put each tensor, the processor looks up 500 addresses for every 2 MB and its prefetching
stops at every page; in one huge page it looks up one.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref

import torch
from torch import Tensor

__all__ = ["empty_like"]

HUGE = 2 << 20
"""Bytes of a huge page, which begins at a multiple of them."""

BLOCK = 32 * HUGE
"""Bytes that are asked for at a time: what of them is never touched takes no memory."""

SMALLEST = 16 << 10
"""Bytes from which a tensor is put there; a smaller one shares its pages with others anyway."""

LINE = 64
"""Bytes to which a tensor is aligned, as torch's own are."""

_advice = getattr(mmap, "MADV_HUGEPAGE", None)


def empty_like(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor in the shape, memory order and device of ``like``.

    It has a storage of its own, as one of `torch.empty_like` has, which cannot be resized. On
    the CPU of Linux it lies in huge pages; elsewhere it is one of `torch.empty_like`.

    >>> empty_like(torch.zeros(300, 400).T, torch.float64).stride()
    (1, 400)
    """
    like = like.detach()
    size = like.numel() * dtype.itemsize
    plain = type(like) is Tensor and like.layout is torch.strided and like.device.type == "cpu"
    if _advice is None or size < SMALLEST or not plain:
        return torch.empty_like(like, dtype=dtype)
    form = torch.empty_like(like, dtype=dtype, device="meta")
    storage = torch.frombuffer(_take(size), dtype=torch.uint8).untyped_storage()
    empty = torch.empty(0, dtype=dtype, device="cpu")  # whatever the default device is
    return empty.set_(storage, 0, form.shape, form.stride())


class _Block:
    """Memory that is handed out from its beginning, and given back with the last of its tensors."""

    def __init__(self, size: int) -> None:
        whole = -(-size // BLOCK) * BLOCK
        # Private: a forked process has its own. More by a page, to begin where a huge one does.
        pages = mmap.mmap(-1, whole + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        assert _advice is not None
        with contextlib.suppress(OSError):  # a system without huge pages: memory all the same
            pages.madvise(_advice)
        first = -torch.frombuffer(pages, dtype=torch.uint8).data_ptr() % HUGE
        self._pages = weakref.ref(pages)
        self._next, self._end = first, first + whole
        self._held: mmap.mmap | None = pages  # until it is handed out

    def take(self, size: int) -> memoryview | None:
        """Return the next bytes, None if there are not as many or the memory was given back."""
        pages, start = self._pages(), self._next
        if pages is None or start + size > self._end:
            return None
        self._held = None
        self._next = start + -(-size // LINE) * LINE
        return memoryview(pages)[start : start + size]


_lock = threading.Lock()
_last: list[_Block] = []


def _take(size: int) -> memoryview:
    with _lock:
        taken = _last[0].take(size) if _last else None
        if taken is None:
            _last[:] = [_Block(size)]
            taken = _last[0].take(size)
    assert taken is not None  # a new block has as many
    return taken
