"""Sharpness-aware minimisation: the gradient of the worst place near the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn

from ravine.engine.norm import squared_norm
from ravine.regularize.part import Part


class SharpnessAware(Part):
    """See `ravine.regularize.sam`.

    Args:
        rho: how far the weights move up the slope, > 0.
        adaptive: each weight in proportion to its size (ASAM).
    """

    def __init__(self, rho: float, adaptive: bool) -> None:
        self.rho = rho
        self.adaptive = adaptive
        self._norms: list[nn.Module] = []

    def begin(self, model: nn.Module) -> None:
        # Statistics of batches would otherwise be taken twice a step, half of them elsewhere.
        self._norms = [m for m in model.modules() if getattr(m, "momentum", None) is not None]

    @property
    def ascends(self) -> bool:
        return True

    @contextlib.contextmanager
    def second_gradient(self, weights: list[nn.Parameter]) -> Iterator[None]:
        moved = [(w, w.grad) for w in weights if w.grad is not None]
        kept = [w.detach().clone() for w, _ in moved]
        momenta = [module.momentum for module in self._norms]
        with torch.no_grad():
            ups = [w.abs() * g if self.adaptive else g for w, g in moved]
            norm = math.sqrt(squared_norm(ups))
            # The slope is 0 at a stationary point: there is no direction up, and w stays.
            scale = self.rho / norm if norm > 0 else 0.0
            for (weight, _), up in zip(moved, ups, strict=True):
                weight.add_(weight.abs() * up if self.adaptive else up, alpha=scale)
        for module in self._norms:
            module.momentum = 0.0  # type: ignore[assignment]
        try:
            yield
        finally:
            for module, momentum in zip(self._norms, momenta, strict=True):
                module.momentum = momentum
            with torch.no_grad():
                for (weight, _), old in zip(moved, kept, strict=True):
                    weight.copy_(old)
