"""The random states of a process: Python, NumPy's global generator, torch, every GPU in use."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the states of the global generators, in types that a checkpoint can hold."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if started else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators into a state that `random_state` returned.

    >>> before = random_state()
    >>> first = torch.rand(2), random.random()
    >>> set_random_state(before)
    >>> second = torch.rand(2), random.random()
    >>> bool((first[0] == second[0]).all()), first[1] == second[1]
    (True, True)
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
