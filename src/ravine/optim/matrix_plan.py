"""How the weights of a matrix optimizer are stepped: stacks of one shape, and AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ravine.engine.choice import Choice, choose, executor
from ravine.engine.functions import host_number
from ravine.engine.lean import Lean
from ravine.engine.program import Program
from ravine.errors import ArgumentError
from ravine.optim import lean_state
from ravine.optim.buckets import Bucket, Group, Member
from ravine.optim.capturable import check as check_capturable
from ravine.optim.compiled_bucket import CompiledBucket
from ravine.optim.matrix_bucket import MatrixBucket, computed_dtype, stack_of
from ravine.optim.matrix_programs import MatrixPrograms
from ravine.optim.matrix_state import MatrixState, kept_moments
from ravine.optim.options import AVERAGE
from ravine.optim.plan import Plan, apart, check_gradient
from ravine.optim.reference_bucket import ReferenceBucket
from ravine.optim.routing import Routed, obstacle
from ravine.optim.sharding import Ranks, is_sharded, local, placement_of
from ravine.optim.shares import share_of
from ravine.optim.watched import WatchedState
from ravine.rules import Rule
from ravine.rules.matrix_rule import MatrixCall, Stacked, matrices


class MatrixPlan(Plan):
    """The weights of a matrix optimizer in buckets; those its rule does not take as in any `Plan`.

    Args:
        programs: the passes of the matrix rule.
        rule: that of the other weights.
        program: the same as a program.
        groups: all groups.
        state: the optimizer's.
        defaults: the options of the other weights' rule.
        ranks: see `Plan`.
        only: see `Plan`.
    """

    def __init__(
        self,
        programs: MatrixPrograms,
        rule: Rule,
        program: Program,
        groups: list[Group],
        state: dict[Tensor, Any],
        defaults: Mapping[str, Any],
        ranks: Ranks = (),
        only: Tensor | None = None,
    ) -> None:
        self.programs = programs
        self.defaults = defaults
        super().__init__(rule, program, groups, state, ranks, only)
        self._decisions = [self._decided(group) for group in groups]
        self._unedited, self.fits = self.fits, self._fits

    def _make_buckets(self, only: Tensor | None) -> list[Bucket]:
        rule = self.programs.rule
        mine: list[tuple[Group, Tensor]] = []
        rest: list[Group] = []
        for group in self.groups:
            self.needs_norm |= group["clip_norm"] is not None
            others = []
            for weight in group["params"]:
                if obstacle(rule, group, weight):
                    others.append(weight)
                else:
                    mine.append((group, weight))
            if others:
                rest.append(cast("Group", Routed(group, others, self.defaults)))
        groups, self.groups = self.groups, rest
        try:
            buckets = super()._make_buckets(only) if rest else []
        finally:
            self.groups = groups
        return [*self._matrix_buckets(mine, only), *buckets]

    def _fits(self, groups: Sequence[Group], state: dict[Tensor, Any]) -> bool:
        """Whether it fits, with the same routes and shapes of state."""
        return self._unedited(groups, state) and [*map(self._decided, groups)] == self._decisions

    def _decided(self, group: Group) -> list[Any]:
        """Return what decides where the weights of a group go, and the shapes of their state."""
        starts = [kept.start for kept in self.programs.rule.kept.values() if kept.start]
        names = {name: None for start in starts for name in matrices(start).hyperparameters}
        return [group.get("matrix"), *(host_number(group[name]) for name in names)]

    def _matrix_buckets(
        self, weights: Sequence[tuple[Group, Tensor]], only: Tensor | None
    ) -> list[Bucket]:
        alike: dict[tuple[Any, ...], list[Member]] = defaultdict(list)
        choices: dict[tuple[Any, ...], list[Choice]] = {}
        rule = self.programs.rule
        rest = sum(len(group["params"]) for group in self.groups)  # at most; each has its own place
        for index, (group, weight) in enumerate(weights, start=rest):
            if weight is not only and (group["in_backward"] or only is not None):
                continue
            if weight.grad is None and not self.state.get(weight):
                self.waiting.append(weight)
                continue
            check_gradient(weight)
            check_capturable(rule, group, rule.name)
            member = Member(weight, group, {}, self._steps(weight), {}, index)
            member.forms["w"] = lean_state.weight_form(weight, group)
            for name in kept_moments(rule, weight, group):
                member.forms[name] = lean_state.state_form(rule, name, weight, group)
            chosen = [
                choose(program, local(weight), group["backend"])
                for program in self.programs.programs
            ]
            left = self.programs.specialised(group)
            layout = (
                weight.device,
                weight.dtype,
                weight.shape,
                weight.stride(),
                placement_of(weight),
            )
            held = (*member.forms.items(), group["average"] is not None)
            key = (*chosen, *map(id, left), *layout, *held, *self._decided(group))
            alike[key].append(member)
            choices[key] = chosen
        parts = [(choices[key], part) for key, members in alike.items() for part in _apart(members)]
        memory = _Scratch()
        for _, members in parts:
            memory.reserve(local(members[0].weight), len(members), rule.scratch)
        return [self._matrix_bucket(chosen, members, memory) for chosen, members in parts]

    def _matrix_bucket(
        self, choices: Sequence[Choice], members: Sequence[Member], memory: _Scratch
    ) -> Bucket:
        rule, states = self.programs.rule, MatrixState(self.programs.rule, self.state)
        group, first = members[0].group, members[0].weight
        stacks: dict[str, Stacked] = {
            name: share_of(first).stack(memory.stack(name, local(first), len(members)))
            for name in rule.scratch
        }
        for name in rule.kept:
            if isinstance(members[0].forms.get(name), Lean):
                states.hold_lean(name, members)
            else:
                stacks[name] = states.stacked(name, members)
        if group["average"] is not None:
            copies = [member.weight.detach() for member in members]
            stacks[AVERAGE] = states.stack(AVERAGE, members, copies)
        for name, stack in stacks.items():
            if isinstance(stack, Tensor) and stack.shape[1:] == first.shape:
                for member, item in zip(members, local(stack), strict=True):
                    member.state[name], member.forms[name] = item, item.dtype
        passes: list[Any] = []
        remaining = iter(choices)
        for step in self.programs.steps:
            if isinstance(step, Program):
                passes.append(_elementwise(step, next(remaining), members))
            else:
                passes.append(step)
        kind = choices[0].executor
        calls = [s.function.__name__ for s in self.programs.steps if isinstance(s, MatrixCall)]
        description = (
            f"{rule.name} of {len(members)} x {tuple(first.shape)}: "
            f"{kind} passes around {', '.join(calls)}: {choices[0].reason}"
            f"{lean_state.words(members[0].forms, group)}"
        )
        bucket = MatrixBucket(passes, stacks, description)
        for member, number in zip(members, bucket.numbers.steps, strict=True):
            state = {**self.state[member.weight], "step": number}
            self.state[member.weight] = WatchedState(state, self.edits)
        return bucket


def _apart(members: list[Member]) -> list[list[Member]]:
    """Split members so that no two weights of a part share memory; see `apart`."""
    parts = apart(members)
    if len(parts) > 1 and is_sharded(members[0].weight):
        raise ArgumentError(
            "two sharded weights share memory",
            where=f"weights of shape {tuple(members[0].weight.shape)}",
            expected="memory of their own: a process without a part of them could not tell",
            do="make them one parameter",
        )
    return parts


def _elementwise(program: Program, choice: Choice, members: Sequence[Member]) -> Bucket:
    if choice.executor == "reference":
        return ReferenceBucket(program, members, choice.reason)
    specialised = program.specialise(members[0].group)
    made = executor(choice.executor)
    return CompiledBucket(program, specialised, members, made, choice.reason)


class _Scratch:
    """Memory for the variables of one step: as large as the largest stack needs, used by all."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[Any, ...], int] = {}
        self._memory: dict[tuple[Any, ...], Tensor] = {}

    def reserve(self, weight: Tensor, count: int, names: Sequence[str]) -> None:
        for name in names:
            key = (name, weight.device, computed_dtype(weight))
            self._sizes[key] = max(self._sizes.get(key, 0), count * weight.numel())

    def stack(self, name: str, weight: Tensor, count: int) -> Tensor:
        key = (name, weight.device, computed_dtype(weight))
        if key not in self._memory:
            self._memory[key] = torch.empty(self._sizes[key], dtype=key[2], device=key[1])
        return stack_of(weight, count, self._memory[key])
