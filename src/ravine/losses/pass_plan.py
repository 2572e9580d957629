# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""What a pass over the data is made of: the program of a loss, and its launch for given tensors."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ravine.engine.choice import executor
from ravine.engine.equation import Equation
from ravine.engine.functions import where
from ravine.engine.launch import Launch
from ravine.engine.program import Program, Specialised, Stage
from ravine.losses.formula import Formula


def weigh(part, weight):
    """Multiply by the sample weight; weight 0 leaves the sample out, whatever it holds."""
    return where(weight == 0, 0.0, weight * part)


def weigh_outside(outside, weight):
    """A target that is left out may be anything."""
    return where(weight == 0, 0.0, outside)


def scale_slope(slope, *, _scale):
    """Multiply the slope by what the reduction multiplies the sum by.

    All stages share the names of hyperparameters, and a loss may have a scale of its own.
    """
    return slope * _scale


class Names(NamedTuple):
    """What the variables of a loss's program are called."""

    tensors: tuple[str, ...]
    """Input, target and the further tensors."""
    slopes: tuple[str, ...]
    outputs: tuple[str, ...]
    """Value, slopes and, where there is one, curvature."""


@cache
def names_of(loss: Formula) -> Names:
    """Return the names in a loss's program."""
    others = tuple(f"other{k}" for k in range(len(loss.others)))
    slopes = ("slope", *(f"slope_{name}" for name in others))
    curvature = ("curvature",) if loss.has_curvature else ()
    return Names(("input", "target", *others), slopes, ("value", *slopes, *curvature))


def wanted_of(loss: Formula, first: str, needs: tuple[bool, ...]) -> tuple[str, ...]:
    """Return the names of the outputs that are wanted: the first, and the slopes that are needed."""
    slopes = zip(names_of(loss).slopes, needs, strict=True)
    return first, *(name for name, need in slopes if need)


_weigh = Equation(weigh)
_weigh_outside = Equation(weigh_outside)
_scale_slope = Equation(scale_slope)


@cache
def program_of(loss: Formula, weighted: bool, first: str, needs: tuple[bool, ...]) -> Program:
    """Return the program of a loss; see `wanted_of` for what it stores."""
    tensors, slopes, outputs = names_of(loss)
    stages = [Stage(loss.equation, tensors, outputs)]
    if weighted:
        stages += [Stage(_weigh, (name, "weight"), (name,)) for name in outputs]
    stages += [Stage(_scale_slope, (name,), (name,)) for name in slopes]
    variables = dict(zip(("target", *loss.others), tensors[1:], strict=True))
    for name, (domain, _) in loss.domains.items():
        outside = f"outside_{variables[name]}"
        stages.append(Stage(domain, (variables[name],), (outside,)))
        if weighted:
            stages.append(Stage(_weigh_outside, (outside, "weight"), (outside,)))
    return Program(stages, private=set(outputs) - set(wanted_of(loss, first, needs)))


@dataclass(frozen=True)
class Plan:
    """A launch for tensors of given types, and what it is given.

    Attributes:
        arrays: name, place among the tensors that are given (-1 for one to be made), and type.
        value: place of the value among the totals, or -1.
        outside: places of the totals that are not 0 where an element is outside of its domain.
        scales: places of the scale among the scalars.
    """

    program: Specialised
    launch: Launch
    arrays: tuple[tuple[str, int, torch.dtype], ...]
    value: int
    outside: tuple[int, ...]
    scales: tuple[int, ...]


_plans = threading.local()


def plan_for(
    kind: str,
    program: Specialised,
    loss: Formula,
    given: list[Tensor],
    wide: torch.dtype,
    separate: bool,
) -> Plan:
    """Return the plan for tensors of these types and this size; a thread keeps its last few.

    On the CPU there is one for each size, as tables cost next to nothing there. On a GPU a plan has pinned
    memory and events, which take the system longer to make than a loss takes: it serves all sizes.

    Args:
        kind: the executor, "cpu" or "gpu".
        program: of the loss.
        loss: whose it is.
        given: input, target, further tensors and, where there is one, the sample weight.
        wide: the type of what is neither given nor a slope by something given.
        separate: the value of each element is wanted, not their sum.
    """
    held: dict[Any, Plan] = _plans.__dict__.setdefault(kind, {})
    size = given[0].numel()
    place = given[0].get_device()
    of_size = size if kind == "cpu" else None
    key = (id(program), *[tensor.dtype for tensor in given], separate, of_size, place)
    plan = held.pop(key, None)
    if plan is None:
        plan = _made(kind, program, loss, given, wide, separate)
    held[key] = plan
    if of_size is None and plan.launch.sizes[0] != size:
        plan.launch.resize([size])
    while len(held) > 32:
        held.pop(next(iter(held)))
    return plan


def _made(
    kind: str,
    program: Specialised,
    loss: Formula,
    given: list[Tensor],
    wide: torch.dtype,
    separate: bool,
) -> Plan:
    names = names_of(loss)
    dtypes = [tensor.dtype for tensor in given]
    places = {name: k for k, name in enumerate((*names.tensors, "weight"))}
    types = dict(zip(places, dtypes, strict=False))
    # The slope by a tensor has its type; the target has none.
    types |= zip(names.slopes, (dtypes[0], *dtypes[2:]), strict=False)
    totals = tuple(
        name
        for name in program.stores
        if name.startswith("outside") or (name == "value" and not separate)
    )
    arrays = tuple(name for name in program.variables if name not in totals)
    stored: dict[str, Any] = {name: types.get(name, wide) for name in (*arrays, *totals)}
    # Whether there is any is all that is wanted, and a count is cheaper than a sum.
    stored |= {name: torch.bool for name in totals if name != "value"}
    if loss.wide:
        stored["arithmetic"] = torch.float64
    module = executor(kind)
    launch = module.Launch(
        module.compiled(program, stored, totals),
        [given[0].numel()],
        arrays=len(arrays),
        slots=len(program.slots),
        totals=len(totals),
        device=given[0].device,
    )
    return Plan(
        program,
        launch,
        tuple((name, places.get(name, -1), stored[name]) for name in arrays),
        totals.index("value") if "value" in totals else -1,
        tuple(k for k, name in enumerate(totals) if name != "value"),
        tuple(
            program.slots.index(slot)
            for step in program.steps
            if step.lowered.equation is _scale_slope
            for slot in step.lowered.slots
        ),
    )
