"""Runs a function in several processes that can talk to each other, and gives back what they return."""

from __future__ import annotations

import io
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

TIME_LIMIT = 100.0
"""Seconds after which processes that wait for each other are ended, and the test fails."""

# A server that has imported everything once, and no thread of its own, forks the processes. What
# fully_shard, a checkpoint or a compiled step import when they are called took each process 0.8 s.
_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload(
    [
        "pytest", "torch", "torch._dynamo.testing", "torch.distributed.checkpoint",
        "torch.distributed.fsdp", "torch.distributed.optim", "torch.distributed.tensor.parallel",
        "llvmlite.binding", "safetensors.torch", "ravine.training",
    ]
)  # fmt: skip


def _in_process(
    case: Callable[..., Any], rank: int, world: int, meeting: str, args, sender
) -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world
        )
        answer = io.BytesIO()  # tensors sent as they are would live in memory of this process
        torch.save(case(*args), answer)
        sender.send((True, answer.getvalue()))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:
        sender.send((False, traceback.format_exc()))
        raise


def in_processes(world: int, case: Callable[..., Any], *args: Any) -> list[Any]:
    """Return what ``case(*args)`` returned in each of ``world`` processes, which use gloo."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        pipes = [_START.Pipe(duplex=False) for _ in range(world)]
        processes = [
            _START.Process(
                target=_in_process,
                args=(case, rank, world, meeting, args, pipes[rank][1]),
                daemon=True,
            )
            for rank in range(world)
        ]
        try:
            for process, (_, sender) in zip(processes, pipes, strict=True):
                process.start()
                sender.close()
            results = _received([receiver for receiver, _ in pipes])
            for process in processes:
                process.join(TIME_LIMIT)
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
    return results


def exit_codes(world: int, case: Callable[..., Any], *args: Any) -> list[int | None]:
    """Return how processes that call ``case(*args)`` together end, each by itself."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        _, sender = _START.Pipe(duplex=False)
        processes = [
            _START.Process(
                target=_in_process, args=(case, k, world, meeting, args, sender), daemon=True
            )
            for k in range(world)
        ]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(TIME_LIMIT)
            return [process.exitcode for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.join()


def exit_code(function: Callable[..., Any], *args: Any) -> int | None:
    """Return how a process that calls ``function(*args)`` ends: 0, or minus the signal."""
    process = _START.Process(target=function, args=args, daemon=True)
    process.start()
    process.join(TIME_LIMIT)
    code = process.exitcode
    process.kill()
    process.join()
    return code


def _received(receivers: list[Any]) -> list[Any]:
    until = time.monotonic() + TIME_LIMIT
    found: dict[int, Any] = {}
    while len(found) < len(receivers):
        waiting = {r: k for k, r in enumerate(receivers) if k not in found}
        ready = wait(list(waiting), timeout=max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError(f"processes {sorted(waiting.values())} gave no answer")
        for receiver in ready:
            try:
                good, value = receiver.recv()
            except EOFError:
                raise RuntimeError(f"process {waiting[receiver]} ended without an answer") from None
            if not good:
                raise AssertionError(f"in process {waiting[receiver]}:\n{value}")
            found[waiting[receiver]] = torch.load(io.BytesIO(value), weights_only=False)
    return [found[k] for k in range(len(receivers))]
