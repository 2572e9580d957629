"""How the weights of an optimizer are stepped: which bucket holds which, made when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ravine.engine.choice import choose, executor
from ravine.engine.lean import Lean
from ravine.engine.program import Program
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.optim import lean_state
from ravine.optim.buckets import Bucket, Group, Member, needed_state, sums_model
from ravine.optim.capturable import CapturableBucket
from ravine.optim.capturable import check as check_capturable
from ravine.optim.compiled_bucket import CompiledBucket
from ravine.optim.made_for import MadeFor
from ravine.optim.options import AVERAGE
from ravine.optim.reference_bucket import ReferenceBucket
from ravine.optim.sharding import Ranks, is_sharded, local, summed_over, total
from ravine.optim.watched import WatchedState
from ravine.rules import Rule


class Plan:
    """The weights of an optimizer in buckets, with their state made where it is missing.

    Attributes:
        buckets: the weights that have a gradient, or have had one.
        waiting: the weights that have had none so far.
        needs_norm: whether a step needs the norm of the whole gradient.
        reduces: whether a step needs sweeps before its last pass.
        shares: whether a step changes numbers of the whole optimizer.
        skips: whether a step is left out if a gradient is not finite.
        follows: whether a group has a schedule.

    ``ranks`` are those that step the other weights, where none of these says so itself. ``only``
    this weight is taken, or, without it, all that are not stepped in backward.
    """

    def __init__(
        self,
        rule: Rule,
        program: Program,
        groups: list[Group],
        state: dict[Tensor, Any],
        ranks: Ranks = (),
        only: Tensor | None = None,
    ) -> None:
        self.rule = rule
        self.program = program
        self.groups = groups
        self.state = state
        self.ranks = ranks
        self.waiting: list[Tensor] = []
        self.skips = any(group["skip_nonfinite"] for group in groups)
        self.follows = any(group.get("schedule") is not None for group in groups)
        self.needs_norm = self.skips or "norm" in rule.equation.hyperparameters
        self.edits: list[str] = []
        with torch.inference_mode(mode=False):  # the state is to be of use outside of it, too
            self.buckets = self._make_buckets(only)
        self._divided = bool(ranks) or any(bucket.ranks for bucket in self.buckets)
        self.reduces = any(bucket.reduces for bucket in self.buckets)
        self.shares = bool(program.shared)
        self.fits = MadeFor(groups, state, self.edits, self.waiting).fits
        """Whether groups and state are still those of the plan, and no weight waits."""
        self.edits.clear()

    def squared_norm(self) -> float:
        """Return the sum of squares of the gradient over all weights, on all ranks."""
        if not self._divided:
            return sum([bucket.squared_norm() for bucket in self.buckets])
        return self._everywhere([bucket.squared_norm() for bucket in self.buckets])

    def count_nonfinite(self) -> int:
        """Return how many elements of the gradients are NaN or infinite, on all ranks."""
        return int(self._everywhere([bucket.count_nonfinite() for bucket in self.buckets]))

    def _everywhere(self, parts: Sequence[float]) -> float:
        ranks = [bucket.ranks or self.ranks for bucket in self.buckets]
        return total(zip(ranks, parts, strict=True), self.ranks)

    def share(self) -> None:
        """Put the numbers of the whole optimizer in every group, as the first weight has left them."""
        leaders = [
            (bucket.members[stepped[0]].index, bucket.shared())
            for bucket in self.buckets
            if (stepped := bucket.stepped())
        ]
        if leaders:
            _, values = min(leaders)
            for group in self.groups:
                group.update(zip(self.program.shared, values, strict=True))

    def _make_buckets(self, only: Tensor | None) -> list[Bucket]:
        shared: dict[tuple[Any, ...], list[Member]] = {}
        plans: dict[tuple[Any, ...], tuple[str, Any, str]] = {}
        captured: dict[torch.device, list[Member]] = {}
        index = -1
        for group in self.groups:
            self.needs_norm |= group["clip_norm"] is not None
            if self.ranks and sums_model(self.program, group):
                raise ArgumentError(
                    f"the rule {self.rule.name} cannot be divided by ZeroRedundancyOptimizer",
                    expected="a rule without sums over all weights",
                    do="use torch.distributed.fsdp.fully_shard, which divides every weight",
                )
            for weight in group["params"]:
                index += 1
                if weight is not only and (group["in_backward"] or only is not None):
                    continue
                if weight.grad is None and not self.state.get(weight):
                    self.waiting.append(weight)
                    continue
                check_gradient(weight)
                member = self._member(group, weight, index)
                if group["capturable"]:
                    check_capturable(self.rule, group, self.rule.name)  # again: groups are edited
                    captured.setdefault(weight.device, []).append(member)
                    continue
                choice = choose(self.program, local(weight), group["backend"])
                specialised = None
                if choice.executor != "reference":
                    specialised = self.program.specialise(group)
                where = (weight.device, is_sharded(weight), summed_over(weight))
                key = (choice, id(specialised), *where, *member.forms.items())
                shared.setdefault(key, []).append(member)
                plans[key] = (choice.executor, specialised, choice.reason)
        buckets: list[Bucket] = []
        for key, members in shared.items():
            kind, specialised, reason = plans[key]
            reason += lean_state.words(members[0].forms, members[0].group)
            if kind == "reference":
                buckets.append(ReferenceBucket(self.program, members, f"reference: {reason}"))
                continue
            sweeps = len(specialised.sweeps) + 1
            title = specialised.title + (f" in {sweeps} sweeps" if sweeps > 1 else "")
            description = f"{kind} kernel of {title}: {reason}"
            buckets += [
                CompiledBucket(self.program, specialised, part, executor(kind), description)
                for part in apart(members)
            ]
        names = {name: self.rule.state_names.get(name, name) for name in self.program.numbers}
        for members in captured.values():
            states = [self.state[member.weight] for member in members]
            buckets.append(CapturableBucket(self.program, members, names, states))
        for bucket in buckets:
            held = {"step": bucket.numbers.steps, **bucket.numbers.held}
            for k, member in enumerate(bucket.members):
                own = {self.rule.state_names.get(n, n): numbers[k] for n, numbers in held.items()}
                state = {**self.state[member.weight], **own}
                self.state[member.weight] = WatchedState(state, self.edits)
        return buckets

    def _steps(self, weight: Tensor) -> float:
        held = self.state[weight]
        # torch's SGD and Muon count no steps, but their buffer tells that there has been one.
        return float(held.get("step", 1 if any(v is not None for v in held.values()) else 0))

    def _member(self, group: Group, weight: Tensor, index: int) -> Member:
        """Return a weight with its state, making what state is missing."""
        held = self.state[weight]
        steps = self._steps(weight)
        names = {name: self.rule.state_names.get(name, name) for name in self.rule.states}
        names[AVERAGE] = AVERAGE
        needed = needed_state(self.program, group)
        own = [names[name] for name in self.rule.states if name in needed]
        if own and all(lean_state.missing(held, name) for name in own):
            steps = (
                0.0  # momentum switched on in the middle begins as at the first step, as torch's
            )
        numbers = {}
        for name, start in self.rule.numbers.items():
            number = held.get(self.rule.state_names.get(name, name))
            if number is None:
                number = group[start] if isinstance(start, str) else start
            numbers[name] = float(number)
        member = Member(weight, group, {}, steps, numbers, index)
        member.forms["w"] = lean_state.weight_form(weight, group)
        for name in self.program.variables:
            if name not in needed:
                continue
            form = lean_state.state_form(self.rule, name, weight, group)
            kind = self.rule.moments.get(name)
            found = lean_state.fit(held, names[name], form, weight, kind)
            if found is None:
                value = self._initial(name, weight, group)
                found = lean_state.put(held, names[name], form, weight, value)
            tensor, scales = found
            member.state[name] = local(tensor.detach())
            member.forms[name] = form if isinstance(form, Lean) else tensor.dtype
            if scales is not None:
                member.scales[name] = scales
        return member

    def _initial(self, name: str, weight: Tensor, group: Group) -> Tensor | complex:
        start = "w" if name == AVERAGE else self.rule.initial.get(name, 0.0)
        if start == "w":
            return weight.detach()
        value = float(group[start] if isinstance(start, str) else start)
        # A complex number is two real ones, as for torch.
        return complex(value, value) if weight.is_complex() else value


def apart(members: list[Member]) -> list[list[Member]]:
    """Split members so that no two weights of a part share memory, keeping who comes first.

    Tied weights may be two parameters over one storage; the threads of one launch would step the
    same memory at once, and a step would be lost.
    """
    here = [local(member.weight) for member in members]
    spans = [(part.data_ptr(), part.data_ptr() + part.nbytes) for part in here]
    ordered = sorted(span for span in spans if span[0] < span[1])
    if all(before[1] <= after[0] for before, after in pairwise(ordered)):
        return [members]
    parts: list[list[Member]] = []
    part_of: list[int] = []
    for member, (start, end) in zip(members, spans, strict=True):
        behind = (
            part_of[k] + 1 for k in range(len(part_of)) if start < spans[k][1] and spans[k][0] < end
        )
        part_of.append(max(behind, default=0))
        if part_of[-1] == len(parts):
            parts.append([])
        parts[part_of[-1]].append(member)
    return parts


def wants_only_state(optimizer: Any) -> bool:
    """Whether the first step is only there to have state made: all of lr and gradients are zero.

    `torch.distributed.checkpoint` makes such a step of an optimizer without state. It must not decay
    weights, average, follow a schedule or be counted.
    """
    return (
        not optimizer.state
        and not optimizer._ranks  # of those, one may have no weight, and so never any state
        and all(float(group["lr"]) == 0 for group in optimizer.param_groups)
        and optimizer.gradient_norm() == 0
    )


def check_gradient(weight: Tensor) -> None:
    gradient = weight.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise ArgumentTypeError(
            "a gradient is sparse",
            where=f"a weight of shape {tuple(weight.shape)}",
            got=str(gradient.layout),
            expected="a dense gradient",
            do="make the embedding with sparse=False, or use torch.optim.SparseAdam",
        )
