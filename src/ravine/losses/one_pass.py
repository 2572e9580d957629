# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""One pass over the data for what is wanted of a loss: value, slopes, curvature."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ravine.engine import cpu
from ravine.engine.choice import choose, is_dense
from ravine.engine.cpu_source import STORED_TYPES
from ravine.engine.equation import Equation
from ravine.engine.functions import where
from ravine.engine.program import Program, Specialised, Stage
from ravine.losses import buffers


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


class Elementwise(Protocol):
    """What the pass needs to know of a loss."""

    equation: Equation
    domains: Mapping[str, tuple[Equation, str]]
    others: tuple[str, ...]
    wide: bool
    has_curvature: bool

    def __hash__(self) -> int:
        """Return what programs are found by."""

    def elements(
        self,
        inputs: tuple[Tensor, ...],
        target: Tensor,
        weight: Tensor | None,
        values: Mapping[str, Any],
    ) -> tuple[Tensor, ...]:
        """Return loss, slopes and curvature of every element by plain PyTorch operations."""

    def checked(self, inputs: tuple[Tensor, ...], target: Tensor) -> dict[str, Tensor]:
        """Return the tensors that may have a domain, by name."""

    def check_domain(
        self, tensors: Mapping[str, Tensor], weight: Tensor | None, values: Mapping[str, Any]
    ) -> None:
        """Raise for the first element outside of its domain."""


class Call(NamedTuple):
    """A call of a loss, without the tensors that it may be differentiated by.

    A tuple, because a frozen dataclass takes a microsecond to make.
    """

    loss: Elementwise
    target: Tensor
    weight: Tensor | None
    """Neither it nor the target needs a gradient."""
    values: Mapping[str, Any]
    """The hyperparameters."""
    reduction: str = "none"
    scale: float = 1.0
    """What the reduced loss and all slopes are multiplied by."""


def value_and_gradient(
    call: Call, inputs: tuple[Tensor, ...], needs: tuple[bool, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the reduced loss and the gradients that are needed."""
    slopes = _slopes(call.loss)
    wanted = ("value", *(name for name, need in zip(slopes, needs, strict=True) if need))
    found = _computed(call, inputs, wanted)
    return found["value"], [found.get(name) for name in slopes]


def curvature_alone(call: Call, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return the second derivative of every element by its input."""
    return _computed(call, inputs, ("curvature",))["curvature"]


def _computed(call: Call, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the wanted outputs of the equation by name."""
    loss, target, weight, values, reduction, scale = call
    inputs = tuple(one.detach() for one in inputs)
    program = _program(loss, weight is not None, wanted)
    if inputs[0].is_cpu and not is_dense(inputs[0]):
        inputs = (inputs[0].contiguous(), *inputs[1:])
    if _has_kernel(program, inputs[0]):
        return _one_pass(program, call, inputs, wanted)
    loss.check_domain(loss.checked(inputs, target), weight, values)
    with torch.no_grad():
        parts = loss.elements(inputs, target, weight, values)
        found = dict(zip(_outputs(loss), parts, strict=True))
        if reduction != "none":
            found["value"] = found["value"].sum() * scale
        for name, one in zip(_slopes(loss), inputs, strict=True):
            found[name] = (found[name] * scale).to(one.dtype)
        return {name: found[name] for name in wanted}


def _others(loss: Elementwise) -> tuple[str, ...]:
    return tuple(f"other{k}" for k in range(len(loss.others)))


def _slopes(loss: Elementwise) -> tuple[str, ...]:
    return ("slope", *(f"slope_{name}" for name in _others(loss)))


def _outputs(loss: Elementwise) -> tuple[str, ...]:
    return ("value", *_slopes(loss), *(("curvature",) if loss.has_curvature else ()))


_kernels: dict[tuple[Program, torch.dtype, torch.layout], bool] = {}


def _has_kernel(program: Program, input: Tensor) -> bool:
    """Whether the CPU's pass can run; asked once for each type."""
    if not input.is_cpu:
        return False
    key = (program, input.dtype, input.layout)
    found = _kernels.get(key)
    if found is None:
        found = _kernels[key] = choose(program, input).executor == "cpu"
    return found


def _one_pass(
    program: Program, call: Call, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]
) -> dict[str, Tensor]:
    loss, target, weight, values, reduction, scale = call
    input = inputs[0]
    wide = torch.float64 if input.dtype is torch.float64 else torch.float32
    tensors = {"input": input, "target": _laid_out(target, input, wide)}
    for name, other in zip(_others(loss), inputs[1:], strict=True):
        tensors[name] = _laid_out(other, input, wide)
    if weight is not None:
        tensors["weight"] = _laid_out(weight, input, wide)
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    for name, one in zip(_slopes(loss), inputs, strict=True):
        types[name] = one.dtype if one.dtype in STORED_TYPES else wide
    numbers = {**values, "_scale": scale}
    plan = _plan(
        program.specialise(numbers), types, wide, loss.wide, reduction == "none", input.numel()
    )
    for name in plan.arrays:
        if name not in tensors:
            tensors[name] = buffers.take(input, types.get(name, wide))
    launch = plan.launch
    for k, name in enumerate(plan.arrays):
        launch.set_addresses(k, [tensors[name].data_ptr()])
    launch.set_scalars(0, plan.program.scalars(numbers))
    launch.run()
    sums = dict(zip(plan.totals, launch.totals(), strict=True))
    if any(total != 0 for name, total in sums.items() if name != "value"):
        loss.check_domain(loss.checked(inputs, target), weight, values)
    if "value" in sums:
        total = sums["value"] * scale
        if abs(total) > torch.finfo(wide).max:  # torch raises where it should round to infinity
            total = math.copysign(math.inf, total)
        tensors["value"] = torch.scalar_tensor(total, dtype=wide)
    return {name: tensors[name] for name in wanted}


def _laid_out(tensor: Tensor, like: Tensor, wide: torch.dtype) -> Tensor:
    """Return a tensor of a type that kernels read, in the memory order of another."""
    if tensor.dtype not in STORED_TYPES:
        tensor = tensor.to(wide)
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


_weigh = Equation(weigh)
_weigh_outside = Equation(weigh_outside)
_scale_slope = Equation(scale_slope)


@cache
def _program(loss: Elementwise, weighted: bool, wanted: tuple[str, ...]) -> Program:
    outputs, slopes = _outputs(loss), _slopes(loss)
    stages = [Stage(loss.equation, ("input", "target", *_others(loss)), outputs)]
    if weighted:
        stages += [Stage(_weigh, (name, "weight"), (name,)) for name in outputs]
    stages += [Stage(_scale_slope, (name,), (name,)) for name in slopes]
    variables = {"target": "target", **dict(zip(loss.others, _others(loss), strict=True))}
    for name, (domain, _) in loss.domains.items():
        outside = f"outside_{variables[name]}"
        stages.append(Stage(domain, (variables[name],), (outside,)))
        if weighted:
            stages.append(Stage(_weigh_outside, (outside, "weight"), (outside,)))
    return Program(stages, private=set(outputs) - set(wanted))


@dataclass(frozen=True)
class Plan:
    """A launch for tensors of one size and of given types, and what it is given."""

    program: Specialised
    launch: cpu.Launch
    arrays: tuple[str, ...]
    totals: tuple[str, ...]


_plans = threading.local()


def _plan(
    program: Specialised,
    types: dict[str, torch.dtype],
    wide: torch.dtype,
    in_float64: bool,
    separate: bool,
    size: int,
) -> Plan:
    """Return the plan for these types and this size; a thread keeps its last few.

    ``wide``: the type of what is not in ``types``; ``in_float64``: the arithmetic is, whatever the
    types are; ``separate``: the value of each element is wanted, not their sum.
    """
    held: dict[Any, Plan] = _plans.__dict__.setdefault("held", {})
    key = (id(program), *types.values(), separate, size)
    plan = held.pop(key, None)
    if plan is None:
        totals = tuple(
            name
            for name in program.stores
            if name.startswith("outside") or (name == "value" and not separate)
        )
        arrays = tuple(name for name in program.variables if name not in totals)
        stored = {name: types.get(name, wide) for name in (*arrays, *totals)}
        if in_float64:
            stored["arithmetic"] = torch.float64
        launch = cpu.Launch(
            cpu.compiled(program, stored, totals),
            [size],
            arrays=len(arrays),
            slots=len(program.slots),
            totals=len(totals),
        )
        plan = Plan(program, launch, arrays, totals)
    held[key] = plan
    while len(held) > 32:
        held.pop(next(iter(held)))
    return plan
