"""What a step does to the weights, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
        self._before: list[Tensor] = []

    def begin(self, weights: Sequence[Tensor]) -> None:
        """Copy what is about to change."""
        self._before = [part.clone() for part in _parts(weights)]

    def forget(self) -> None:
        """Let the copy go."""
        self._before = []

    @torch.no_grad()
    def end(self, weights: Sequence[Tensor], scale: float = 1.0) -> Change | None:
        """Say what became of it; None where there is no copy of these weights.

        Args:
            weights: those of `begin`.
            scale: what the gradients are multiplied by.
        """
        before, self._before = self._before, []
        if len(before) != len(weights) or not before:
            return None
        gradients = [None if w.grad is None or w.grad.is_sparse else local(w.grad) for w in weights]
        dense = [g for g in gradients if g is not None and g.numel()]
        changes = list(torch._foreach_sub(_parts(weights), before))
        products = [
            torch.dot(g.flatten()[: c.numel()].to(c.dtype), c.flatten())
            for g, c in zip(gradients, changes, strict=True)
            if g is not None and c.numel()
        ]
        found = _norms(dense) + _norms(changes) + _norms(before) + products
        # Together, so that a GPU is waited for once.
        home = found[0].device
        numbers = torch.stack([n.to(home, torch.float32) for n in found]).tolist()
        a, b, c = len(dense), len(dense) + len(changes), len(dense) + 2 * len(changes)
        return Change(
            gradient_norm=math.hypot(*numbers[:a]) / scale,
            moved=math.hypot(*numbers[a:b]),
            size=math.hypot(*numbers[b:c]),
            promised=-sum(numbers[c:]) / scale,
        )


def _parts(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return what is looked at of each weight."""
    here = [local(w.detach()) for w in weights]
    if sum(part.numel() for part in here) <= MOST:
        return here
    most = max(MOST // len(here), 1)
    return [part.flatten()[:most] for part in here]


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """Return the norm of each; a sum of squares in half precision may be too large for it."""
    if not tensors:
        return []
    half = any(t.dtype == torch.float16 for t in tensors)
    return list(torch._foreach_norm(tensors, 2, dtype=torch.float32 if half else None))


def local(tensor: Tensor) -> Tensor:
    """Return the part of a divided tensor that is in this process, in real numbers."""
    to_local = getattr(tensor, "to_local", None)
    here: Tensor = tensor if to_local is None else to_local()
    return torch.view_as_real(here) if here.is_complex() else here
