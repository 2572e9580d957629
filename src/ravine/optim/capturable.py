"""Weights whose step reads nothing on the host, so that a CUDA graph can hold it (``capturable=True``).

A captured graph repeats what was done on the device, with the numbers that the host had then. Step counts and
all numbers that depend on them are therefore tensors beside their weight here, and the equations are called
with these, as plain PyTorch operations: the graph saves their launches, not their passes over memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.engine import capture
from ravine.engine.norm import sum_of_squares
from ravine.engine.program import Program
from ravine.engine.reference import evaluate
from ravine.errors import ArgumentError
from ravine.optim import rounding
from ravine.optim.buckets import Group, Member, Stale, needed_state, sums_model
from ravine.optim.sharding import is_sharded
from ravine.optim.totals import Sweeps
from ravine.rules import Rule
from ravine.schedules import Schedule

WHY = "reference: capturable=True, plain PyTorch operations that a CUDA graph can hold"


def check(rule: Any, group: Group, where: str) -> None:
    """Refuse what the host decides or computes at every step."""
    if not group["capturable"]:
        return
    asked = {
        "a schedule as lr": isinstance(group["lr"], Schedule) or group.get("schedule") is not None,
        "skip_nonfinite=True": group["skip_nonfinite"],
        "in_backward=True": group["in_backward"],
        f"state_dtype={group.get('state_dtype')!r}": group.get("state_dtype") != "float32",
        "stochastic_rounding=True": group.get("stochastic_rounding"),
        f"the rule {rule.name}, which computes with whole matrices": type(rule) is not Rule,
    }
    for what, wanted in asked.items():
        if wanted:
            raise _refused(where, what)


def _refused(where: str, got: str) -> ArgumentError:
    return ArgumentError(
        "capturable=True cannot be used",
        where=where,
        got=got,
        expected="a step that needs nothing from the host",
        do="leave one of them out; without capturable, capture forward and backward alone and call "
        "step() after each replay",
    )


def refuse_capture() -> None:
    """Raise an error if a CUDA graph is being captured, by the step of who is not ``capturable``."""
    capture.refuse(
        "this step",
        torch.device("cuda"),
        got="an optimizer whose step counts and hyperparameters are read by the host",
        expected="capturable=True",
        do="make it so, or capture forward and backward alone and call step() after each replay",
    )


class DeviceNumbers:
    """Step counts, and numbers that are state, as float64 tensors beside their weights.

    Those that the state holds already are kept: a captured graph goes on with the same memory.

    Args:
        members: the weights.
        names: of the numbers that are state: the rule's, and those in the state.
        held: the state of each weight.
    """

    def __init__(
        self, members: Sequence[Member], names: Mapping[str, str], held: Sequence[Mapping[str, Any]]
    ) -> None:
        self.steps = [
            _beside(m.weight, h.get("step"), m.steps) for m, h in zip(members, held, strict=True)
        ]
        self.held = {
            name: [
                _beside(m.weight, h.get(saved), m.numbers[name])
                for m, h in zip(members, held, strict=True)
            ]
            for name, saved in names.items()
        }


def _beside(weight: Tensor, present: Any, value: float) -> Tensor:
    if (
        isinstance(present, Tensor)
        and present.device == weight.device
        and present.dtype is torch.float64
        and present.dim() == 0
        and present._base is None
    ):
        return present
    return torch.full((), value, dtype=torch.float64, device=weight.device)


class CapturableBucket:
    """Weights stepped one by one, without a look of the host at any number."""

    reduces = False
    ranks: Any = ()

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        names: Mapping[str, str],
        held: Sequence[Mapping[str, Any]],
    ) -> None:
        for member in members:
            shape = tuple(member.weight.shape)
            if sums_model(program, member.group):
                raise _refused(f"the weight of shape {shape}", "sums over all weights")
            if is_sharded(member.weight):
                raise _refused(f"the weight of shape {shape}", "a sharded weight")
        self.members = members
        self.numbers = DeviceNumbers(members, names, held)
        self.description = WHY
        self._program = program
        self._stepped: list[int] = []

    def gather(self) -> None:
        for member in self.members:
            if needed_state(self._program, member.group).difference(member.state):
                raise Stale
        gradients = [member.weight.grad for member in self.members]
        if any(g is not None and g.layout is not torch.strided for g in gradients):
            raise Stale
        self._stepped = [k for k, g in enumerate(gradients) if g is not None]

    def squared_norm(self) -> Any:
        """Return it as a tensor on the device."""
        gradients = [self.members[k].weight.grad for k in self._stepped]
        return sum(sum_of_squares(gradient) for gradient in gradients if gradient is not None)

    def count_nonfinite(self) -> int:
        raise NotImplementedError("skip_nonfinite is refused beside capturable")

    def stepped(self) -> Sequence[int]:
        return self._stepped

    def sweeps(self, common: dict[str, float]) -> Sweeps:
        raise NotImplementedError("equations are called with whole tensors")

    @torch.no_grad()
    def run(self, common: dict[str, Any]) -> None:
        if not self._stepped:
            return
        torch._foreach_add_([self.numbers.steps[k] for k in self._stepped], 1.0)
        for k in self._stepped:
            member = self.members[k]
            gradient = member.weight.grad
            assert gradient is not None
            own = {name: held[k] for name, held in self.numbers.held.items()}
            values = {**member.group, **common, "t": self.numbers.steps[k], **own}
            new = evaluate(self._program, rounding.opened(gradient, member), values)
            for name, held in own.items():
                held.copy_(new.pop(name))
            ordered = {name: new[name] for name in self._program.variables if name in new}
            rounding.store(ordered, member, 0)

    def shared(self) -> Sequence[float]:
        return ()
