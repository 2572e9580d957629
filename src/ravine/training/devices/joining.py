"""Joining the other processes that ``torchrun`` has started."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist

from ravine.training.devices.team import Team, Together

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

YIELD = 0.02
"""Seconds: a thread that waits for Python's lock asks for it every 5 ms."""


def processes() -> int:
    """Return how many processes there are: 1 unless ``torchrun``, or the caller, made more."""
    if not dist.is_available():
        return 1
    if dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _NEEDED) else 1


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    if processes() == 1:
        return True
    return dist.get_rank() == 0 if dist.is_initialized() else os.environ["RANK"] == "0"


def own_device(device: torch.device) -> torch.device:
    """Return this process's device of a kind: the GPU of its place on the machine."""
    if device.type != "cuda" or device.index is not None or processes() == 1:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Give the processes that train together; a group that is made here is ended here.

    Args:
        device: where this process computes: gloo is used on a CPU and NCCL on a CUDA GPU, unless
            the caller has made the process group already.

    """
    if processes() == 1:
        yield Team()
        return
    made = not dist.is_initialized()
    device = own_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if made:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    team = Together(device)
    try:
        with team.guarded():
            yield team
    finally:
        team.close()
        if made:
            dist.destroy_process_group()
            _let_go()


def _let_go() -> None:
    """Let torch's threads let go of the last messages, before an end of Python that aborts them.

    Where Python ends while a thread of gloo still holds a tensor, the process ends with SIGABRT
    (pytorch issue 190489, pull request 179291): measured, 6 of 26 short runs of two processes, each
    time after everything was written. What the collection frees joins its threads; the others get
    the interpreter's lock while this thread sleeps.
    """
    gc.collect()
    time.sleep(YIELD)
