"""One kernel over the weights of a bucket, with the scalars that each weight uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ravine.engine.host import Bound, HostFunction
from ravine.engine.launch import Launch
from ravine.engine.lean import KEY, Stored, layout, scales_column
from ravine.engine.program import Specialised
from ravine.optim.totals import Sums

Row = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What scalars are computed from: a group with its options, and what is known only at the step."""

Rows = tuple[Sequence[Row], list[int]]
"""Rows, and the one that each weight uses."""


Totals = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
"""Numbers by name, each a column with one for each weight."""


def each(
    function: HostFunction, rows: Rows, totals: Totals
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return what a function comes to for each weight, a row for each."""
    values, row_of = rows
    if len(values) == 1:
        return function.table(*values[0], totals, len(row_of))
    owners = np.array(row_of)
    table = np.empty(0)
    for row, (options, now) in enumerate(values):
        chosen = np.flatnonzero(owners == row)
        own = {name: column[chosen] for name, column in totals.items()}
        found = function.table(options, now, own, len(chosen))
        if not row:
            table = np.empty((len(owners), found.shape[1]))
        table[chosen] = found
    return table


class Pass:
    """A specialised program, compiled and launched over weights.

    Args:
        specialised: what to do; a step's last pass, or one of its sweeps.
        weights: what to do it to.
        states: the state of each weight, by the program's variable names.
        types: how each variable lies in memory.
        scales: those of each weight's states that are held as codes.
        executor: the module that compiles and launches.
    """

    def __init__(
        self,
        specialised: Specialised,
        weights: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        types: Mapping[str, Stored],
        scales: Sequence[Mapping[str, Tensor]],
        executor: Any,
    ) -> None:
        self.specialised = specialised
        summed = {total.variable for total in specialised.totals}
        arrays = tuple(name for name in specialised.variables if name not in summed)
        columns = layout(arrays, types)
        self.launch: Launch = executor.Launch(
            executor.compiled(specialised, {name: types[name] for name in arrays}),
            [w.numel() for w in weights],
            arrays=len(columns),
            slots=len(specialised.slots),
            totals=len(summed),
            device=weights[0].device,
        )
        for k, name in enumerate(arrays):
            if name == "w":
                self.launch.set_addresses(k, [w.data_ptr() for w in weights])
            elif name != "g":
                self.launch.set_addresses(k, [state[name].data_ptr() for state in states])
            if scales_column(name) in columns:
                place = columns.index(scales_column(name))
                self.launch.set_addresses(place, [one[name].data_ptr() for one in scales])
        self.rounds = KEY in columns
        """Whether anything is rounded at random."""
        self._key = columns.index(KEY) if self.rounds else 0
        self.gradient = arrays.index("g") if "g" in arrays else None
        """Which of the launch's arrays the gradients are."""
        self._scalars_of = Bound(specialised.scalars).at
        self._set: list[tuple[float, ...] | None] = []  # by row
        self._row_of: list[int] | None = None

    def run(self, rows: Rows, totals: Totals | None = None) -> None:
        """Compute the scalars and run the kernel over the selected weights.

        Args:
            rows: what each row of scalars is computed from.
            totals: what each weight has of its own, where the scalars depend on it.
        """
        if totals and self.specialised.by_tensor:
            self._set_each(rows, totals)
            self.launch.run()
            return
        values, row_of = rows
        launch = self.launch
        if row_of is not self._row_of:
            launch.grow_scalars(len(values))
            launch.set_rows(row_of)
            self._row_of = row_of
            self._set = [None] * len(values)
        for row, (options, now) in enumerate(values):
            scalars = self._scalars_of(options)(now)
            if scalars is not self._set[row]:  # it is, where nothing depends on the step
                launch.set_scalars(row, scalars)
                self._set[row] = scalars
        launch.run()

    def _set_each(self, rows: Rows, totals: Totals) -> None:
        """Give each weight a row of scalars of its own."""
        table = each(self.specialised.scalars, rows, totals)
        if self._row_of is not None or not self._set:
            self.launch.grow_scalars(len(table))
            self.launch.set_rows(list(range(len(table))))
            self._row_of, self._set = None, [None]
        self.launch.set_all_scalars(table)

    def set_keys(self, keys: list[int]) -> None:
        """Set the key of each weight's random bits, where anything is rounded at random."""
        self.launch.set_addresses(self._key, keys)

    def totals(self) -> Sums:
        """Return what the last run of a sweep added up, a row for each total."""
        return self.launch.tensor_totals().cpu().numpy()
