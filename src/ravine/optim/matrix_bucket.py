"""Weights of one shape that a matrix rule steps together, in stacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.engine.choice import is_dense
from ravine.engine.functions import host_number
from ravine.optim.buckets import Bucket, Member
from ravine.optim.passes import Rows
from ravine.optim.rows import Numbers, merged
from ravine.optim.sharding import local
from ravine.optim.shares import none_of, share_of, whole, write
from ravine.optim.totals import Sweeps, settle
from ravine.rules.matrix_rule import MatrixCall, Stacked


def computed_dtype(weight: Tensor) -> torch.dtype:
    """Return the type that a weight is computed, and its state kept, in."""
    return torch.float32 if weight.dtype in (torch.bfloat16, torch.float16) else weight.dtype


def stack_of(weight: Tensor, count: int, memory: Tensor | None = None) -> Tensor:
    """Return an uninitialised stack whose items lie in memory as the weight does.

    Args:
        weight: one of them.
        count: how many.
        memory: flat, to be used instead of new memory.
    """
    strides = (
        weight.stride() if is_dense(weight) else torch.empty(weight.shape, device="meta").stride()
    )
    if memory is None:
        memory = torch.empty(
            count * weight.numel(), dtype=computed_dtype(weight), device=weight.device
        )
    return memory.as_strided((count, *weight.shape), (weight.numel(), *strides))


class _Counted:
    """The numbers of a bucket, counted once a step for all of its passes."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.groups = numbers.groups
        self.held = numbers.held
        self.steps = numbers.steps
        self.rows: Rows | None = None

    def count(self, *args: Any) -> Rows:
        if self.rows is None:
            self.rows = self.numbers.count(*args)
        return self.rows

    def keys(self) -> list[int]:
        return self.numbers.keys()

    def advance(self, *args: Any) -> None:
        """There are no numbers that are state."""


class MatrixBucket:
    """Weights of one shape, device and type: elementwise passes with functions of stacks between.

    Args:
        passes: buckets of the elementwise programs, over the same members, and calls, in order.
        stacks: the state and the variables of one step, by name. Elementwise passes hold views of
            their items.
        description: what steps them, in words.
    """

    def __init__(
        self,
        passes: Sequence[Any],
        stacks: dict[str, Stacked],
        description: str,
    ) -> None:
        self._passes = passes
        self._first: Bucket = passes[0]
        self._stacks = stacks
        self.members: Sequence[Member] = self._first.members
        self.numbers = self._first.numbers
        self.description = description
        self.ranks = self._first.ranks
        self.reduces = False  # to the outside: sums over its own tensors are found in `run`
        self._counted = _Counted(self.numbers)
        self._at_hand: dict[str, tuple[Sequence[int] | None, Stacked]] = {}
        for one in self._elementwise():
            one.numbers = self._counted  # type: ignore[assignment]

    def _elementwise(self) -> list[Bucket]:
        return [one for one in self._passes if not isinstance(one, MatrixCall)]

    def gather(self) -> None:
        for one in self._elementwise():
            one.gather()

    def squared_norm(self) -> float:
        return self._first.squared_norm()

    def count_nonfinite(self) -> int:
        return self._first.count_nonfinite()

    def stepped(self) -> Sequence[int]:
        return self._first.stepped()

    def sweeps(self, common: Mapping[str, float]) -> Sweeps:
        yield from ()

    @torch.no_grad()
    def run(self, common: Mapping[str, float]) -> None:
        if not self.stepped():
            return
        self._counted.rows = None
        self._at_hand.clear()
        for one in self._passes:
            if isinstance(one, MatrixCall):
                self._call(one)
                continue
            if one.reduces:
                settle([one], {**common})
            one.run(common)
        self._at_hand.clear()

    def shared(self) -> Sequence[float]:
        return ()

    def _call(self, call: MatrixCall) -> None:
        """Call a function of stacks, once for all weights whose numbers are the same to it."""
        assert self._counted.rows is not None
        values, row_of = self._counted.rows
        alike: dict[tuple[Any, ...], list[int]] = {}
        for k in self.stepped():
            row = merged(values[row_of[k]])
            key = tuple(host_number(row[name]) for name in call.hyperparameters)
            alike.setdefault(key, []).append(k)
        for key, chosen in alike.items():
            rows = None if len(chosen) == len(self.members) else chosen
            given = [self._read(name, rows) for name in call.reads]
            old = [self._stacks[name] for name in call.writes]
            if _count(given):
                result = call.function(*given, **dict(zip(call.hyperparameters, key, strict=True)))
                results = result if len(call.writes) > 1 else (result,)
            else:  # other processes compute all of them
                results = _each(old, none_of)
            for name, one, new in zip(call.writes, old, results, strict=True):
                _write(one, rows, new, name)
                self._keep(name, rows, new)

    def _read(self, name: str, rows: list[int] | None) -> Stacked:
        if name == "w":
            return whole(self._weights(rows))
        if name in self._at_hand and self._at_hand[name][0] == rows:
            return self._at_hand[name][1]
        read: Stacked = _each(self._stacks[name], lambda stack: whole(stack, rows))
        self._keep(name, rows, read)
        return read

    def _keep(self, name: str, rows: list[int] | None, value: Any) -> None:
        """Keep what came from other processes, for the next call that reads it in this step.

        State of each dimension alone: elementwise passes change the rest.
        """
        if self.ranks and isinstance(self._stacks[name], tuple):
            self._at_hand[name] = rows, tuple(value)

    def _weights(self, rows: list[int] | None) -> Tensor:
        first = self.members[0].weight
        weights = [local(member.weight).detach() for member in self.members]
        chosen = weights if rows is None else [weights[k] for k in rows]
        return share_of(first).stack(torch.stack([w.to(computed_dtype(w)) for w in chosen]))


def _each(stacks: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return what a function makes of every tensor."""
    if isinstance(stacks, (tuple, list)):
        return tuple(_each(one, change) for one in stacks)
    return None if stacks is None else change(stacks)


def _count(given: Any) -> int:
    """Return how many matrices stacks have: the same in each."""
    if isinstance(given, (tuple, list)):
        return max((_count(one) for one in given), default=0)
    return 0 if given is None else len(given)


def _write(old: Stacked, rows: list[int] | None, new: Any, name: str) -> None:
    if isinstance(old, tuple):
        for one, its in zip(old, new, strict=True):
            _write(one, rows, its, name)
    elif old is not None and new is not old:
        assert new.shape[1:] == old.shape[1:], name
        write(old, rows, new)
