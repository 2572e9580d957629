"""Runs a compiled kernel on several threads: those of PyTorch's own OpenMP pool where it has one.

A kernel takes its work from a shared counter, chunk by chunk, so any number of threads may enter it
and none needs to know which one it is. Entering PyTorch's own pool matters: a second pool of spinning
threads beside it made a step right after a matrix product four times slower (2M weights).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch

_FORKED = False


def _after_fork() -> None:
    # GNU OpenMP ends a child that enters a parallel region after its parent did.
    global _FORKED  # noqa: PLW0603
    _FORKED = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=1)
def _openmp() -> Callable[[int, int, int, int], None] | None:
    """Return ``GOMP_parallel`` of the OpenMP library that PyTorch has loaded, if it is GNU's."""
    if not sys.platform.startswith("linux") or "OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        loaded = Path("/proc/self/maps").read_text(encoding="utf-8").split()
    except OSError:
        return None
    home = str(Path(torch.__file__).parent.parent)
    paths = {word for word in loaded if "libgomp" in word or "libiomp" in word}
    for path in sorted(paths, key=lambda p: not p.startswith(home)):
        try:
            enter = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        enter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        enter.restype = None
        return enter
    return None


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=256, thread_name_prefix="ravine")


_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # 0.06 us faster than with an int64


class Kernel:
    """A compiled ``void kernel(int64 head)`` and the ways to run it."""

    def __init__(self, function: object, address: int) -> None:
        self._keep = function  # the machine code lives as long as this does
        self.address = address
        self.serial: Callable[[int], None] = _CALL(address)
        """Run on the calling thread."""

    def parallel(self, head: int) -> None:
        """Run on as many threads as PyTorch uses; returns when all work is done."""
        count = torch.get_num_threads()
        if count == 1 or _FORKED:
            self.serial(head)
            return
        enter = _openmp()
        if enter is not None:
            enter(self.address, head, count, 0)
            return
        helpers = [_threads().submit(self.serial, head) for _ in range(count - 1)]
        self.serial(head)
        for helper in helpers:
            helper.result()


def description() -> str:
    """Say in words which threads a parallel kernel runs on."""
    count = torch.get_num_threads()
    if count == 1:
        return "1 thread"
    if _FORKED:
        return "1 thread (this process was forked)"
    return f"{count} threads of " + ("PyTorch's OpenMP pool" if _openmp() else "Ravine's own pool")
