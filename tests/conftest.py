"""What every test file shares: the same random numbers, and threads that don't get in each other's way."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Generator
from typing import Any

import pytest

# torch is imported where it is needed: the process that starts the workers never needs it, and they would
# wait for it for 3 s.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    import torch

    # A worker has said all it has to say. Taking every module apart takes Python 3 s.
    atexit.register(os._exit, 0)
    # Two pools of spinning threads on the same cores wait for each other for milliseconds a step.
    THREADS = max(1, (os.cpu_count() or 1) // WORKERS)
    torch.set_num_threads(THREADS)
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))  # of the processes that tests start
# Inductor's workers import torch each in a process of its own, for the few kernels of a test.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers ``-n auto`` is: a quarter of the time a test waits for processes.

    The suite on two cores took 10:51 with two, at three quarters of the processors' time.
    """
    return max(1, (os.cpu_count() or 1) * 3 // 2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Keep what is collected, ten thousand tests and torch's tables, from Python's collector.

    It looked at all of it again and again: for 5 of the 26 s that collecting takes, and after.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the slow tests out to the workers first, so that none is the last that others wait for.

    xdist gives each worker a quarter of its share in order, and then smaller parts of the rest.
    """
    if WORKERS == 1:
        return
    share = len(items) // (4 * WORKERS)
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    items.clear()
    for worker in range(WORKERS):
        its = slow[worker::WORKERS]
        between = max(0, share - len(its))
        items += its + quick[:between]
        del quick[:between]
    items += quick


def pytest_sessionfinish() -> None:
    if WORKERS == 1:
        gc.unfreeze()  # extensions report what Python leaves at its end as leaks


@pytest.fixture(autouse=True)
def _seeded():
    """Begin every test with the same random numbers."""
    import torch

    torch.manual_seed(0)
