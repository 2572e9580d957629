"""Which executor runs a program over a tensor, and why."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ravine.engine import cpu
from ravine.engine.element_types import supports
from ravine.engine.program import Program
from ravine.errors import ArgumentError, BackendWarning, EquationError

Backend = Literal["auto", "reference", "cpu", "gpu"]
BACKENDS = ("auto", "reference", "cpu", "gpu")


@dataclass(frozen=True)
class Choice:
    """The executor chosen, and the reason in words."""

    executor: Literal["reference", "cpu", "gpu"]
    reason: str


def choose(program: Program, tensor: torch.Tensor, backend: str = "auto") -> Choice:
    """Choose the executor of a program for a tensor.

    Raises:
        ArgumentError: ``backend`` names an executor that cannot run here.
    """
    if backend not in BACKENDS:
        raise ArgumentError(
            f"unknown backend {backend!r}", expected="one of " + ", ".join(BACKENDS)
        )
    if backend == "reference":
        return Choice("reference", "asked for by backend='reference'")
    kind, obstacle = _compiled(program, tensor)
    if not obstacle and backend not in ("auto", kind):
        obstacle = f"a tensor on the device {tensor.device}"
    if not obstacle:
        return Choice(kind, _CHOSEN[kind])
    if backend != "auto":
        raise ArgumentError(
            f"backend={backend!r} cannot be used", got=obstacle, do="leave backend='auto'"
        )
    return Choice("reference", obstacle)


_CHOSEN = {
    "cpu": "tensors on the CPU, compiled by LLVM",
    "gpu": "tensors on the GPU, compiled by Triton",
}


def _compiled(program: Program, tensor: torch.Tensor) -> tuple[Literal["cpu", "gpu"], str]:
    """Return the compiled executor for a tensor and what stands in its way."""
    kind: Literal["cpu", "gpu"] = "gpu" if tensor.device.type == "cuda" else "cpu"
    if tensor.device.type not in ("cpu", "cuda"):
        return kind, f"no kernels for the device {tensor.device.type}"
    if tensor.layout is not torch.strided or type(tensor) not in (
        torch.Tensor,
        torch.nn.Parameter,
    ):
        return kind, f"no kernels for {type(tensor).__name__} with layout {tensor.layout}"
    if not supports(tensor.dtype):
        return kind, f"no kernels for {tensor.dtype}"
    if not is_dense(tensor):
        return kind, "the tensor is a view with gaps or overlaps"
    missing = unavailable(kind)
    if missing:
        return kind, missing
    unreadable = _unreadable(program)
    if unreadable:
        warn_once(
            f"{unreadable}\nRavine computes it with plain PyTorch operations, which is slower"
        )
        return kind, unreadable.splitlines()[0]
    return kind, ""


def executor(name: str) -> Any:
    """Return the module that compiles and launches for "cpu" or "gpu"."""
    if name == "gpu":
        from ravine.engine import gpu

        return gpu
    return cpu


def unavailable(name: str) -> str:
    """Return why "cpu" or "gpu" cannot be used here, which is warned of once, or an empty string."""
    missing: str = executor(name).unavailable()
    if missing:
        warn_once(f"{missing}: Ravine computes with plain PyTorch operations, which is slower")
    return missing


def _unreadable(program: Program) -> str:
    for stage in program.stages:
        try:
            stage.equation.tree  # noqa: B018 (parses, or raises)
        except EquationError as error:
            return str(error)
    return ""


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one stretch of memory, each exactly once, in whatever order."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warn with `BackendWarning`, once a process for each message."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, BackendWarning, stacklevel=3)
