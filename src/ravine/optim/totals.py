"""Totals over weights and over the model: what sweeps add up, and how buckets wait for each other."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from ravine.engine.columns import COLUMNS
from ravine.errors import EquationError
from ravine.optim.sharding import Ranks, added_up

Sums = np.ndarray[Any, np.dtype[np.float64]]
Sweeps = Generator[dict[str, float], Mapping[str, float], None]
"""Runs sweeps; yields a bucket's part of sums over the model, and is sent those sums."""


def across_processes(sums: Sums, ranks: Ranks) -> Sums:
    """Return sums with the parts of the weights that other processes hold.

    Every total of a step goes through here before it is used.

    Args:
        sums: a row for each total, a column for each weight; 0 for a weight without gradient.
        ranks: the processes over which the weights are divided.
    """
    if not ranks:
        return sums
    return np.array(added_up(sums.ravel().tolist(), [ranks] * sums.size)).reshape(sums.shape)


def settled(kind: str, total: Any, elements: Any) -> Any:
    """Return what a reduction over one weight comes to, or over each weight of a column."""
    if kind == "tensor_norm":
        return COLUMNS["sqrt"](total)  # NaN stays NaN
    return COLUMNS["divide"](total, elements)


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
