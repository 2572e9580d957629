"""Weights of one shape that a matrix rule steps together, in stacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.engine.choice import is_dense
from ravine.engine.functions import host_number
from ravine.engine.lean import Lean
from ravine.optim.buckets import Bucket, Member
from ravine.optim.passes import Rows
from ravine.optim.rounding import opened_state
from ravine.optim.rows import Numbers, merged
from ravine.optim.sharding import is_sharded, local
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
        self.rows: Rows | None = None

    def count(self, *args: Any) -> Rows:
        if self.rows is None:
            self.rows = self.numbers.count(*args)
        return self.rows


class _OfPass:
    """The numbers as one pass sees them, with random bits of its own.

    Args:
        counted: those of the bucket.
        place: of the pass among all.
    """

    def __init__(self, counted: _Counted, place: int) -> None:
        numbers = counted.numbers
        self.count = counted.count
        self.place = place
        self.numbers = numbers
        self.groups = numbers.groups
        self.held = numbers.held
        self.steps = numbers.steps

    def keys(self) -> list[int]:
        return self.numbers.keys(self.place)

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
        first = self.members[0]
        self._lean = [name for name in first.state if isinstance(first.forms[name], Lean)]
        for place, one in enumerate(reversed(self._elementwise())):  # the last rounds the weights
            one.numbers = _OfPass(self._counted, place)

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
            if _count(given):
                result = call.function(*given, **dict(zip(call.hyperparameters, key, strict=True)))
                results = result if len(call.writes) > 1 else (result,)
            else:  # other processes compute all of them
                results = _each([self._stacks[name] for name in call.writes], none_of)
            was = dict(zip(call.reads, given, strict=True))
            for name, new in zip(call.writes, results, strict=True):
                _write(self._stacks[name], rows, new, was.get(name))
                self._keep(name, rows, new)

    def _read(self, name: str, rows: list[int] | None) -> Stacked:
        if name == "w" or name in self._lean:
            return whole(self._apart(name, rows))
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

    def _apart(self, name: str, rows: list[int] | None) -> Tensor:
        """Return a new stack of what each weight holds by itself, as it is computed with."""
        chosen = self.members if rows is None else [self.members[k] for k in rows]
        if name == "w":
            weights = [local(member.weight).detach() for member in chosen]
            parts = [w.to(computed_dtype(w)) for w in weights]
        else:
            parts = [opened_state(member, name) for member in chosen]
        return share_of(chosen[0].weight).stack(torch.stack(parts))


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


def _write(old: Stacked, rows: list[int] | None, new: Any, was: Any) -> None:
    """Write to stacks what a call returned where that is not what it was given.

    Of sharded ones always: others cannot tell what this process was given.
    """
    if isinstance(old, tuple):
        for one, its, before in zip(old, new, was or [None] * len(old), strict=True):
            _write(one, rows, its, before)
    elif old is not None and (new is not was or is_sharded(old)):
        assert new.shape[1:] == old.shape[1:]
        write(old, rows, new)
