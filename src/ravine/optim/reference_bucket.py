"""Weights stepped one by one with plain PyTorch operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine.functions import host_number
from ravine.engine.lean import Lean
from ravine.engine.norm import count_nonfinite, squared_norm
from ravine.engine.program import Program
from ravine.engine.reference import Reducing, Unknown, evaluate
from ravine.errors import EquationError
from ravine.optim import rounding
from ravine.optim.buckets import Group, Member, Stale, needed_state
from ravine.optim.rows import Numbers, merged
from ravine.optim.sharding import local_gradients, summed_over
from ravine.optim.totals import Sweeps, across_processes, different_sums, settled

_Values = tuple[list[dict[str, Any]], list[int]]
"""Hyperparameters and numbers, row by row, and the row that each weight uses."""


class ReferenceBucket:
    """Weights stepped one by one; any device, type and layout that PyTorch computes with."""

    def __init__(self, program: Program, members: Sequence[Member], description: str) -> None:
        self.members = members
        self._params = [member.weight for member in members]
        self.ranks = summed_over(self._params[0])
        self.numbers = Numbers(members, program.numbers)
        self.description = description
        self.reduces = any(_reduces(program, group) for group in self.numbers.groups)
        self._program = program
        self._lean = any(isinstance(f, Lean) for m in members for f in m.forms.values())
        self._reducing = Reducing(program) if self.reduces else None
        self._totals: list[dict[str, float]] | None = None
        self._rows: _Values | None = None
        self._shared: Sequence[float] = ()

    def gather(self) -> None:
        for member in self.members:
            missing = needed_state(self._program, member.group).difference(member.state)
            if missing:
                raise Stale
        self._gradients = local_gradients(self._params)
        if any(g is not None and g.layout is not torch.strided for g in self._gradients):
            raise Stale
        self._stepped = [k for k, gradient in enumerate(self._gradients) if gradient is not None]

    def squared_norm(self) -> float:
        return squared_norm([g for g in self._gradients if g is not None])

    def count_nonfinite(self) -> int:
        return count_nonfinite(self._gradients)

    def stepped(self) -> Sequence[int]:
        return self._stepped

    @torch.no_grad()
    def sweeps(self, common: dict[str, float]) -> Sweeps:
        assert self._reducing is not None
        self._rows = self._counted(self.stepped(), common)
        values, row_of = self._rows
        self._totals = [{} for _ in self.members]
        open_ = set(self.stepped())
        while open_:
            asked: dict[str, tuple[str, dict[int, float]]] = {}
            for k in sorted(open_):
                tensors = self._tensors(k)
                try:
                    self._reducing.evaluate(tensors, values[row_of[k]], self._totals[k])
                except Unknown as unknown:
                    asked.setdefault(unknown.name, (unknown.kind, {}))[1][k] = unknown.total
                else:
                    open_.discard(k)
            of_model = {}
            for name, (kind, found) in asked.items():
                sums = self._everywhere(found)
                if kind == "model_sum":
                    if len(found) < len(self.stepped()):
                        continue  # for now: others have something else to find before it
                    of_model[name] = sum(sums)
                    continue
                for k in found:
                    weight = self.members[k].weight
                    self._totals[k][name] = settled(kind, sums[k], weight.numel())
            if asked and all(kind == "model_sum" for kind, _ in asked.values()):
                if len(of_model) < len(asked):
                    raise different_sums()
                everywhere = yield of_model
                for k in open_:
                    self._totals[k].update(everywhere)

    def _counted(self, stepped: Sequence[int], common: dict[str, float]) -> _Values:
        """Count a step and return the values for it, those that a person gave as tensors as numbers."""
        rows, row_of = self.numbers.count(stepped, common)
        names = {*self._program.hyperparameters, *self.numbers.held}
        plain = [{n: host_number(v) for n, v in merged(row).items() if n in names} for row in rows]
        return plain, row_of

    def _everywhere(self, found: Mapping[int, float]) -> list[float]:
        row = np.array([[found.get(k, 0.0) for k in range(len(self.members))]])
        sums: list[float] = across_processes(row, self.ranks)[0].tolist()
        return sums

    def _tensors(self, k: int) -> dict[str, Tensor]:
        """Return a weight, its gradient and its state as they are computed with."""
        gradient = self._gradients[k]
        assert gradient is not None
        return rounding.opened(gradient, self.members[k])

    @torch.no_grad()
    def run(self, common: dict[str, float]) -> None:
        stepped = self.stepped()
        totals, self._totals = self._totals, None
        rows, self._rows = self._rows, None
        values, row_of = rows or self._counted(stepped, common)
        keys = self.numbers.keys() if self._lean else [0] * len(self.members)
        new_numbers: dict[int, list[float]] = {}
        for k in stepped:
            tensors = self._tensors(k)
            one = values[row_of[k]]
            if totals is None or self._reducing is None:
                new = evaluate(self._program, tensors, one)
            else:
                new = self._reducing.evaluate(tensors, one, totals[k])
            names = (*self._program.numbers, *self._program.shared)
            new_numbers[k] = [float(new.pop(name)) for name in names]
            ordered = {name: new[name] for name in self._program.variables if name in new}
            rounding.store(ordered, self.members[k], keys[k])
        self._gradients = [None] * len(self.members)  # so that zero_grad frees them
        if new_numbers:
            own = [0] * len(self.members)
            for row, k in enumerate(new_numbers):
                own[k] = row
            self.numbers.advance(list(new_numbers.values()), own, stepped)
            self._shared = new_numbers[stepped[0]][len(self._program.numbers) :]

    def shared(self) -> Sequence[float]:
        return self._shared


def _reduces(program: Program, group: Group) -> bool:
    try:
        return bool(program.specialise(group).sweeps)
    except EquationError:  # only the reference can run it
        return program.reduces
