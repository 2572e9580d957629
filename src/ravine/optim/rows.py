"""The numbers of the weights of a bucket: steps taken, numbers that are state, and who shares them.

Weights of the same group, step count and numbers share a row of scalars, so that in the common case
a step computes its scalars once for each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine.lean import step_keys
from ravine.engine.philox import stream_seed
from ravine.optim.passes import Row, Rows

if TYPE_CHECKING:
    from ravine.optim.buckets import Group, Member


def merged(row: Row) -> dict[str, Any]:
    """Return a row's hyperparameters and numbers in one dictionary."""
    options, now = row
    return {**options, "lr": float(options["lr"]), **now}


Table = np.ndarray[Any, np.dtype[np.float64]]

APART = 0xD1B54A32D192ED03
"""How far the streams of two places of a step are apart: an odd number without a pattern."""


class Numbers:
    """Step counts and numbers of weights, one float64 each; ``optimizer.state`` holds views of them.

    Attributes:
        steps: how many steps each weight has taken.
        held: the numbers that are state of each weight, by name.
        groups: the groups of the weights.
    """

    def __init__(self, members: Sequence[Member], names: Sequence[str]) -> None:
        self.steps = _on_host([m.steps for m in members])
        self.held: dict[str, Tensor] = {
            name: _on_host([m.numbers[name] for m in members]) for name in names
        }
        self._steps = self.steps.numpy()
        self._seeds = [(m.group["rounding_seed"], m.index) for m in members]
        self._streams: Any = None  # 20 us for each weight, so only where they are asked for
        self._held = {name: tensor.numpy() for name, tensor in self.held.items()}
        self.groups: list[Group] = []
        for member in members:
            if not any(member.group is group for group in self.groups):
                self.groups.append(member.group)
        self._group_of = [
            next(k for k, group in enumerate(self.groups) if group is member.group)
            for member in members
        ]
        self._first_of = [self._group_of.index(k) for k in range(len(self.groups))]
        self._t: float | None = None
        self._fill = self._steps.fill
        self.compare()

    def compare(self) -> None:
        """Note the one step count that all weights share, or None where any number differs."""
        self._version = self.steps._version
        self._held_versions = [tensor._version for tensor in self.held.values()]
        counts = set(self._steps.tolist())
        alike = len(counts) == 1
        if alike and self._held:
            held = [array.tolist() for array in self._held.values()]
            alike = len(set(zip(self._group_of, *held, strict=True))) == len(self.groups)
        self._t = counts.pop() if alike else None

    def count(self, active: Sequence[int] | None, common: dict[str, float]) -> Rows:
        """Count a step of some weights, or of all, and return the rows for its scalars.

        Args:
            active: the weights that are stepped; None for all.
            common: the numbers of this step that are the same for all weights.
        """
        # PyTorch counts changes in place; our own are made through NumPy.
        if self._version != self.steps._version or (
            self._held and self._held_versions != [t._version for t in self.held.values()]
        ):
            self.compare()  # someone has set state["step"] in place
        if active is None and self._t is not None:
            self._t += 1
            self._fill(self._t)  # half a microsecond faster than to add one
        else:
            self._steps[... if active is None else active] += 1
            self.compare()
        rows: list[Row] = []
        if self._t is not None:
            now = common.copy()
            now["t"] = self._t
            if self._held:
                return self._with_held(now), self._group_of
            for group in self.groups:  # a comprehension is a call more, of 0.2 us
                rows.append((group, now))  # noqa: PERF401
            return rows, self._group_of
        held = [array.tolist() for array in self._held.values()]
        keys = list(zip(self._group_of, self._steps.tolist(), *held, strict=True))
        row_of = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        for number, t, *numbers in row_of:
            # A weight that has not been stepped yet is not selected; its row is never read.
            own = dict(zip(self._held, numbers, strict=True))
            rows.append((self.groups[number], {**common, "t": max(t, 1.0), **own}))
        return rows, [row_of[key] for key in keys]

    def _with_held(self, now: dict[str, float]) -> list[Row]:
        """Return a row for each group, with the numbers that its weights share."""
        firsts = zip(self.groups, self._first_of, strict=True)
        arrays = self._held.items()
        return [
            (g, {**now, **{name: float(a[first]) for name, a in arrays}}) for g, first in firsts
        ]

    def keys(self, place: int = 0) -> list[int]:
        """Return the keys of the weights' random bits in the step that was counted last.

        Args:
            place: of what is rounded, where a step rounds in several places.
        """
        if self._streams is None:
            self._streams = np.array([stream_seed(*one) for one in self._seeds], dtype=np.uint64)
        streams = self._streams + np.uint64(place * APART % 2**64) if place else self._streams
        return step_keys(streams, self._steps)

    def advance_each(self, new: Table, active: Sequence[int]) -> None:
        """Take the new numbers of the weights that were stepped, a row for each weight."""
        for k, array in enumerate(self._held.values()):
            array[active] = new[active, k]
        self.compare()

    def advance(
        self, new: Sequence[Sequence[float]], row_of: Sequence[int], active: Sequence[int] | None
    ) -> None:
        """Take the new numbers of the weights that were stepped, given for each row."""
        for k, array in enumerate(self._held.values()):
            if active is None and len(new) == 1:
                array[:] = new[0][k]
            else:
                chosen = range(len(row_of)) if active is None else active
                array[list(chosen)] = [new[row_of[member]][k] for member in chosen]
        if self._held and not (active is None and row_of is self._group_of):
            self.compare()


def _on_host(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")
