"""Totals over weights and over the model: what sweeps add up, and how buckets wait for each other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ravine.engine.functions import divide
from ravine.errors import EquationError
from ravine.optim.sharding import added_up, summed_over

Sums = np.ndarray[Any, np.dtype[np.float64]]
Sweeps = Generator[dict[str, float], Mapping[str, float], None]
"""Runs sweeps; yields a bucket's part of sums over the model, and is sent those sums."""


def across_processes(weights: Sequence[Tensor], sums: Sums) -> Sums:
    """Return sums with the parts of the weights that other processes hold.

    Every total of a step goes through here before it is used.

    Args:
        weights: what the sums are over.
        sums: a row for each total, a column for each weight; 0 for a weight without gradient.
    """
    over = [summed_over(weight) for weight in weights]
    if not any(over):
        return sums
    everywhere = added_up(sums.ravel().tolist(), over * len(sums))
    return np.array(everywhere).reshape(sums.shape)


def settled(weight: Tensor, kind: str, total: float) -> float:
    """Return what a reduction over one weight comes to."""
    if kind == "tensor_norm":
        return math.sqrt(total)  # NaN stays NaN
    return divide(total, weight.numel())


class Swept(Protocol):
    """What has sweeps to run."""

    def sweeps(self, common: dict[str, float]) -> Sweeps:
        """Run the sweeps of this step."""


def settle(buckets: Iterable[Swept], common: dict[str, float]) -> None:
    """Run the sweeps of all buckets; none goes on with a sum before all have added their part.

    Raises:
        EquationError: the buckets ask for different sums.
    """
    running = dict(enumerate(bucket.sweeps(common) for bucket in buckets))
    everyone = set(running)
    waiting: dict[int, dict[str, float]] = {}
    parts: dict[str, dict[int, float]] = {}
    while running:
        ready = []
        for k, sweeps in running.items():
            asked = waiting.get(k)
            try:
                if asked is None:
                    waiting[k] = next(sweeps)
                elif all(parts[name].keys() == everyone for name in asked):
                    waiting[k] = sweeps.send({name: _added(parts[name]) for name in asked})
                else:
                    continue
            except StopIteration:
                ready.append(k)
                continue
            ready.append(-1)
            for name, part in waiting[k].items():
                parts.setdefault(name, {})[k] = part
        if not ready:
            raise different_sums()
        for k in ready:
            running.pop(k, None)


def different_sums() -> EquationError:
    """Build the error for an equation that asks for sums in one group and not in another."""
    return EquationError(
        "groups of weights ask for different sums over the model",
        expected="the same calls of model_sum whatever the hyperparameters",
        do="take the sums before any if",
    )


def _added(parts: Mapping[int, float]) -> float:
    return sum(parts[k] for k in sorted(parts))
