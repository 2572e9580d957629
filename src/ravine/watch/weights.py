"""What a step does to the weights, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ravine.watch.seen import read

MOST = 2**22
"""How many weights are copied at most to see how they change: 16 MB in float32."""


@dataclass(frozen=True)
class Change:
    """What came of a step.

    Attributes:
        gradient_norm: over all weights.
        moved: the norm of the change.
        size: the norm of the weights before.
        promised: by how much the loss would fall if the gradient told all: -(gradient . change).
    """

    gradient_norm: float
    moved: float
    size: float
    promised: float


class Weights:
    """Takes a copy before a step and compares after it.

    Of more than `MOST` weights the beginning of each tensor is copied; of those divided over
    processes the part that is here. No process waits for another.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None

    @torch.no_grad()
    def begin(self, weights: Sequence[Tensor]) -> None:
        """Copy what is about to change."""
        self._before = _flat([local(w) for w in weights])

    def forget(self) -> None:
        """Let the copy go."""
        self._before = None

    @torch.no_grad()
    def end(self, weights: Sequence[Tensor], scale: float = 1.0) -> Change | None:
        """Say what became of it; None where there is no copy of these weights.

        Args:
            weights: those of `begin`.
            scale: what the gradients are multiplied by.
        """
        before, self._before = self._before, None
        here = [local(w) for w in weights]
        after = _flat(here)
        if before is None or after is None or before.shape != after.shape:
            return None
        change = after.sub_(before)
        gradients = [
            torch.zeros_like(h) if w.grad is None or w.grad.is_sparse else local(w.grad)
            for w, h in zip(weights, here, strict=True)
        ]
        gradient = _flat(gradients)
        assert gradient is not None
        whole = gradient if len(gradient) == sum(g.numel() for g in gradients) else None
        numbers: list[float] = read(
            [
                torch.linalg.vector_norm(gradient) if whole is not None else _norm(gradients),
                torch.linalg.vector_norm(change),
                torch.linalg.vector_norm(before),
                torch.dot(gradient.to(change.dtype), change),
            ]
        )
        return Change(numbers[0] / scale, numbers[1], numbers[2], -numbers[3] / scale)


def _flat(here: Sequence[Tensor]) -> Tensor | None:
    """Return a copy of what is looked at, in one tensor."""
    if not here:
        return None
    parts = [part.flatten() for part in here]
    if sum(map(len, parts)) > MOST:
        most = max(MOST // len(here), 1)
        parts = [part[:most] for part in parts]
    home = parts[0].device
    flat = torch.cat([part if part.device == home else part.to(home) for part in parts])
    return flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the norm over all; a sum of squares in half precision may be too large for it."""
    half = any(t.dtype == torch.float16 for t in tensors)
    norms = torch._foreach_norm(tensors, 2, dtype=torch.float32 if half else None)
    home = norms[0].device
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.to(home, torch.float32) for n in norms]))
    return norm


def local(tensor: Tensor) -> Tensor:
    """Return the part of a divided tensor that is in this process, in real numbers."""
    here: Tensor = tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[attr-defined]
    return torch.view_as_real(here) if here.is_complex() else here


def is_divided(tensor: Tensor) -> bool:
    """Whether a part of a tensor is in this process, and others elsewhere."""
    if type(tensor) in (Tensor, torch.nn.Parameter):  # looking for what is not there costs 1 us
        return False
    return hasattr(tensor, "to_local")
