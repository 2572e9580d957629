# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""One pass over the data for loss and gradient, and its place in autograd."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from ravine.engine import cpu
from ravine.engine.choice import choose, is_dense
from ravine.engine.cpu_source import STORED_TYPES
from ravine.engine.equation import Equation
from ravine.engine.functions import where
from ravine.engine.program import Program, Specialised, Stage
from ravine.losses import buffers
from ravine.losses.arguments import is_batched


def weigh(value, slope, weight):
    """Multiply by the sample weight; weight 0 leaves the sample out, whatever it holds."""
    return where(weight == 0, 0.0, weight * value), where(weight == 0, 0.0, weight * slope)


def weigh_outside(outside, weight):
    """A target that is left out may be anything."""
    return where(weight == 0, 0.0, outside)


def scale_slope(slope, *, scale):
    """Multiply the slope by what the reduction multiplies the sum by."""
    return slope * scale


class Elementwise(Protocol):
    """What the pass needs to know of a loss."""

    equation: Equation
    domain: Equation | None

    def elements(
        self, input: Tensor, target: Tensor, weight: Tensor | None, values: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return loss and slope of every element by plain PyTorch operations."""

    def check_domain(self, target: Tensor, weight: Tensor | None) -> None:
        """Raise for the first target outside of the domain."""


class FusedLoss(torch.autograd.Function):
    """Loss forwards, gradient kept for the way back; from there on the equation on whole tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        rest: tuple[Elementwise, Tensor, Tensor | None, Mapping[str, Any], str, float],
    ) -> Tensor:
        loss, target, weight, values, reduction, scale = rest
        # Half-precision slopes wait for their factors: see `backward`.
        now = reduction != "none" or input.dtype not in HALVES
        result, gradient = value_and_gradient(
            loss, input, target, weight, values, reduction, scale, now
        )
        ctx.save_for_backward(input, target, weight)
        ctx.rest = loss, values, reduction, scale
        ctx.gradient = gradient
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        loss, values, reduction, scale = ctx.rest
        # Asked for even where it is not needed: it is what notices an input changed meanwhile.
        input, target, weight = ctx.saved_tensors
        # This way back may itself be differentiated, or see many gradients at once (vmap).
        if torch.is_grad_enabled() or is_batched(grad_output):
            _, slope = loss.elements(input, target, weight, values)
            gradient = (slope * (scale * grad_output)).to(input.dtype)
            return gradient, None
        # Given away at once: autograd may then make it x.grad without a copy. A second way back
        # computes it anew, to the same bits.
        gradient, ctx.gradient = ctx.gradient, None
        total = reduction != "none" and grad_output.is_cpu
        factor = grad_output.item() if total else 1.0
        kind = input.dtype
        half = kind in HALVES
        if half and total and factor != 1:
            # All factors before rounding, so that a scaled loss saves what float16 cannot hold.
            gradient, scale, factor = None, scale * factor, 1.0
        if gradient is None:
            if half and not total:
                input, target = input.float(), target.to(torch.float32)
            # "sum" whatever was asked for: the values have been given, only the slopes are missing.
            _, gradient = value_and_gradient(
                loss, input, target, weight, values, "sum", scale, True
            )
        if not total:
            gradient.mul_(grad_output)
        elif factor != 1:
            gradient.mul_(factor)
        return gradient if gradient.dtype is kind else gradient.to(kind), None


HALVES = (torch.float16, torch.bfloat16)


def value_and_gradient(
    loss: Elementwise,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    values: Mapping[str, Any],
    reduction: str,
    scale: float,
    needs_gradient: bool,
) -> tuple[Tensor, Any]:
    """Return the reduced loss and, if it is needed, the gradient times ``scale``."""
    input, target = input.detach(), target.detach()
    weight = None if weight is None else weight.detach()
    program = _program(loss.equation, loss.domain, weight is not None, needs_gradient)
    if input.is_cpu and not is_dense(input):
        input = input.contiguous()
    if _has_kernel(program, input):
        return _one_pass(program, loss, input, target, weight, values, reduction, scale)
    loss.check_domain(target, weight)
    with torch.no_grad():
        elements, slope = loss.elements(input, target, weight, values)
        result = elements if reduction == "none" else elements.sum() * scale
        return result, (slope * scale).to(input.dtype)


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
    program: Program,
    loss: Elementwise,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    values: Mapping[str, Any],
    reduction: str,
    scale: float,
) -> tuple[Tensor, Tensor | None]:
    wide = torch.float64 if input.dtype is torch.float64 else torch.float32
    target = _laid_out(target, input, wide)
    weight = None if weight is None else _laid_out(weight, input, wide)
    numbers = {**values, "scale": scale}
    plan = _plan(
        program.specialise(numbers),
        input.dtype,
        target.dtype,
        None if weight is None else weight.dtype,
        reduction == "none",
        input.numel(),
    )
    tensors = {"input": input, "target": target, "weight": weight}
    if "value" in plan.arrays:
        tensors["value"] = buffers.take(input, wide)
    if "slope" in plan.arrays:
        tensors["slope"] = buffers.take(input, input.dtype)
    launch = plan.launch
    for k, name in enumerate(plan.arrays):
        launch.set_addresses(k, [tensors[name].data_ptr()])  # type: ignore[union-attr]
    launch.set_scalars(0, plan.program.scalars(numbers))
    launch.run()
    sums = dict(zip(plan.totals, launch.totals(), strict=True))
    if sums.get("outside", 0.0) != 0:
        loss.check_domain(target, weight)
    gradient = tensors.get("slope")
    if reduction == "none":
        return tensors["value"], gradient  # type: ignore[return-value]
    return torch.scalar_tensor(sums["value"] * scale, dtype=wide), gradient


def _laid_out(tensor: Tensor, like: Tensor, wide: torch.dtype) -> Tensor:
    """Return a tensor of a type that kernels read, in the memory order of another."""
    if tensor.dtype not in STORED_TYPES:
        tensor = tensor.to(wide)
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


@cache
def _program(
    equation: Equation, domain: Equation | None, weighted: bool, needs_gradient: bool
) -> Program:
    stages = [Stage(equation, ("input", "target"), ("value", "slope"))]
    if weighted:
        outputs = ("value", "slope")
        stages.append(Stage(Equation(weigh), (*outputs, "weight"), outputs))
    stages.append(Stage(Equation(scale_slope), ("slope",), ("slope",)))
    if domain is not None:
        stages.append(Stage(domain, ("target",), ("outside",)))
        if weighted:
            stages.append(Stage(Equation(weigh_outside), ("outside", "weight"), ("outside",)))
    return Program(stages, private=() if needs_gradient else ("slope",))


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
    input: torch.dtype,
    target: torch.dtype,
    weight: torch.dtype | None,
    separate: bool,
    size: int,
) -> Plan:
    """Return the plan for these types and this size; a thread keeps its last few.

    ``separate``: the value of each element is wanted, not their sum.
    """
    held: dict[Any, Plan] = _plans.__dict__.setdefault("held", {})
    key = (id(program), input, target, weight, separate, size)
    plan = held.pop(key, None)
    if plan is None:
        wide = torch.float64 if input is torch.float64 else torch.float32
        types = {"input": input, "target": target, "slope": input, "value": wide, "outside": wide}
        if weight is not None:
            types["weight"] = weight
        totals = tuple(
            name
            for name in ("value", "outside")
            if name in program.stores and not (separate and name == "value")
        )
        arrays = tuple(name for name in program.variables if name not in totals)
        types = {name: types[name] for name in (*arrays, *totals)}
        launch = cpu.Launch(
            cpu.compiled(program, types, totals),
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
