"""Randomness that belongs to a task's seed and leaves the caller's generators as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ravine.errors import ArgumentError, ArgumentTypeError

_LARGEST = 2**32 - 1  # what NumPy's global generator takes


def check_seed(seed: object) -> int:
    """Return the seed if it is an integer in [0, 2**32 - 1].

    >>> check_seed(3)
    3
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ArgumentTypeError("the seed is not an integer", got=repr(seed), expected="an int")
    if not 0 <= seed <= _LARGEST:
        raise ArgumentError(
            "the seed is out of range", got=repr(seed), expected=f"0 <= seed <= {_LARGEST}"
        )
    return int(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside the block, then restore them.

    CUDA generators take part only if CUDA is in use already: starting it would cost seconds.

    >>> before = torch.random.get_rng_state()
    >>> with seeded(0):
    ...     first = torch.rand(3)
    >>> with seeded(0):
    ...     bool(torch.equal(torch.rand(3), first))
    True
    >>> bool(torch.equal(torch.random.get_rng_state(), before))
    True
    """
    seed = check_seed(seed)
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if started else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also queue a seed for a CUDA that is not started yet.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
