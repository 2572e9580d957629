"""The state of a matrix rule: stacks of what many weights keep, of which each holds its item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.engine.functions import host_number
from ravine.errors import ArgumentError, ShapeError
from ravine.optim import lean_state
from ravine.optim.buckets import Group, Member
from ravine.optim.matrix_bucket import computed_dtype, stack_of
from ravine.optim.sharding import local
from ravine.optim.shares import share_of
from ravine.rules.matrix_rule import Kept, MatrixRule, Stacked, matrices


class MatrixState:
    """Makes what state is missing, and puts that of weights of one shape together.

    Args:
        rule: the rule.
        state: the optimizer's.
    """

    def __init__(self, rule: MatrixRule, state: dict[Tensor, Any]) -> None:
        self.rule = rule
        self.state = state

    def stacked(self, variable: str, members: Sequence[Member]) -> Stacked:
        """Return a state of all weights in one piece of memory, of which each holds its item."""
        first, kept = members[0].weight, self.rule.kept[variable]
        kind = self.rule.moments.get(variable)
        start = _start(kept, first, members[0].group, first.device)
        if not isinstance(start, tuple):
            if start is None and kept.start is not None:
                return None
            return self.stack(kept.name, members, [start] * len(members), kind)
        found = []
        for k, one in enumerate(start):
            name = f"{kept.name}_{k}"
            late = [m.weight for m in members if m.steps and name not in self.state[m.weight]]
            if one is not None and late:
                raise ArgumentError(
                    f"the state lacks {name!r}, which {self.rule.name} keeps from the first step on",
                    got=f"a weight of shape {tuple(late[0].shape)} with other state",
                    do="leave the options that shape the state as they were, or delete "
                    "optimizer.state[weight] to begin anew",
                )
            found.append(None if one is None else self.stack(name, members, [one] * len(members)))
        return tuple(found)

    def stack(
        self,
        name: str,
        members: Sequence[Member],
        starts: Sequence[Tensor | None],
        kind: str | None = None,
    ) -> Tensor:
        """Return a stack of what the state holds, or of the start where it holds nothing.

        Args:
            name: in ``optimizer.state``.
            members: the weights.
            starts: of each weight; None is zeros of its shape.
            kind: of moment, which may be held in another form.
        """
        first, start = members[0].weight, starts[0]
        like = first.detach() if start is None or start.shape == first.shape else start
        share = share_of(first, like)
        stack = stack_of(share.part(like), len(members))
        for item, member, start in zip(stack, members, starts, strict=True):
            state = self.state[member.weight]
            held = lean_state.take(state, name, kind)
            if held is None:
                item.zero_() if start is None else item.copy_(share.part(start))
            elif held.shape != like.shape:
                raise ShapeError(
                    f"the state {name!r} does not fit its weight",
                    got=f"shape {tuple(held.shape)}",
                    expected=f"shape {tuple(like.shape)}",
                    do="delete optimizer.state[weight] where a weight gets another shape, or where "
                    "an option changes that of the state",
                )
            else:
                item.copy_(share.part(held))
            state[name] = share.item(item)
        return share.stack(stack)

    def hold_lean(self, variable: str, members: Sequence[Member]) -> None:
        """Hold a moment of each weight in the form that it is to have, by itself."""
        name, kind = self.rule.kept[variable].name, self.rule.moments[variable]
        for member in members:
            held, form = self.state[member.weight], member.forms[variable]
            found = lean_state.fit(held, name, form, member.weight, kind)
            if found is None:
                found = lean_state.put(held, name, form, member.weight, 0.0)
            tensor, scales = found
            member.state[variable] = local(tensor.detach())
            if scales is not None:
                member.scales[variable] = scales


def kept_moments(rule: MatrixRule, weight: Tensor, group: Group) -> list[str]:
    """Return the moments that are kept of a weight with these options."""
    kept = {name: rule.kept[name] for name in rule.moments}
    return [
        name
        for name, one in kept.items()
        if one.start is None or _start(one, weight, group, "meta") is not None
    ]


def _start(kept: Kept, weight: Tensor, group: Group, device: Any) -> Stacked:
    """Return the start of a state, None where it is zeros or there is none."""
    if kept.start is None:
        return None
    like = torch.empty(0, dtype=computed_dtype(weight), device=device)
    named = {name: host_number(group[name]) for name in matrices(kept.start).hyperparameters}
    return kept.start(tuple(weight.shape), like, **named)
