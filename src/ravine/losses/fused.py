# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""One pass over the data for loss and gradient, and its place in autograd."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from ravine.engine import cpu
from ravine.engine.cpu_source import STORED_TYPES
from ravine.engine.choice import choose, is_dense
from ravine.engine.equation import Equation
from ravine.engine.functions import where
from ravine.engine.program import Program, Specialised, Stage
from ravine.losses import buffers


def weigh(value, slope, weight):
    """Multiply by the sample weight; weight 0 leaves the sample out, whatever it holds."""
    return where(weight == 0, 0.0, weight * value), where(weight == 0, 0.0, weight * slope)


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

    def check_domain(self, target: Tensor) -> None:
        """Raise for the first target outside of the domain."""


class FusedLoss(torch.autograd.Function):
    """Loss forwards, gradient kept for the way back; from there on the equation on whole tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        loss: Elementwise,
        target: Tensor,
        weight: Tensor | None,
        values: Mapping[str, Any],
        reduction: str,
        scale: float,
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        result, gradient = _value_and_gradient(
            loss, input, target, weight, values, reduction, scale, needs_gradient
        )
        ctx.save_for_backward(input, target, weight)
        ctx.rest = loss, values, reduction, scale
        ctx.gradient = gradient if needs_gradient else None
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        loss, values, reduction, scale = ctx.rest
        if torch.is_grad_enabled():  # this way back is itself going to be differentiated
            input, target, weight = ctx.saved_tensors
            _, slope = loss.elements(input, target, weight, values)
            gradient = (slope * (scale * grad_output)).to(input.dtype)
            return gradient, None, None, None, None, None, None
        # Given away at once: autograd may then make it x.grad without a copy. A second way back
        # computes it anew, to the same bits.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            input, target, weight = ctx.saved_tensors
            _, gradient = _value_and_gradient(
                loss, input, target, weight, values, reduction, scale, True
            )
        if reduction == "none" or grad_output.device.type != "cpu":
            gradient.mul_(grad_output)
        else:
            factor = grad_output.item()
            if factor != 1:
                gradient.mul_(factor)
        return gradient, None, None, None, None, None, None


def _value_and_gradient(
    loss: Elementwise,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    values: Mapping[str, Any],
    reduction: str,
    scale: float,
    needs_gradient: bool,
) -> tuple[Tensor, Any]:
    program = _program(loss.equation, loss.domain, weight is not None, needs_gradient)
    if input.device.type == "cpu" and not is_dense(input):
        input = input.contiguous()
    if choose(program, input).executor == "cpu":
        return _one_pass(program, loss, input, target, weight, values, reduction, scale)
    loss.check_domain(target)
    with torch.no_grad():
        elements, slope = loss.elements(input, target, weight, values)
        result = elements if reduction == "none" else elements.sum() * scale
        return result, (slope * scale).to(input.dtype)


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
    input = input.detach()
    tensors = {"input": input, "target": _laid_out(target.detach(), input)}
    if weight is not None:
        tensors["weight"] = _laid_out(weight.detach(), input)
    numbers = {**values, "scale": scale}
    specialised = program.specialise(numbers)
    wide = torch.float64 if input.dtype is torch.float64 else torch.float32
    totals = [name for name in ("value", "outside") if name in specialised.stores]
    if reduction == "none":
        totals.remove("value")
        tensors["value"] = buffers.take(input, wide)
    if "slope" in specialised.stores:
        tensors["slope"] = buffers.take(input, input.dtype)
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    types |= dict.fromkeys(totals, wide)
    launch = _launch(specialised, types, tuple(totals), input.numel())
    arrays = [name for name in specialised.variables if name not in totals]
    for k, name in enumerate(arrays):
        launch.set_addresses(k, [tensors[name].data_ptr()])
    launch.set_scalars(0, specialised.scalars(numbers))
    launch.run()
    sums = dict(zip(totals, launch.totals(), strict=True))
    if sums.get("outside", 0.0) != 0:
        loss.check_domain(target)
    gradient = tensors.get("slope")
    if reduction == "none":
        return tensors["value"], gradient
    return torch.tensor(sums["value"] * scale, dtype=wide), gradient


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of a type that kernels read, in the memory order of another."""
    if tensor.dtype not in STORED_TYPES:
        tensor = tensor.to(like.dtype)
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


@lru_cache(maxsize=None)
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
    return Program(stages, private=() if needs_gradient else ("slope",))


_launches = threading.local()


def _launch(
    program: Specialised, types: dict[str, torch.dtype], totals: tuple[str, ...], size: int
) -> cpu.Launch:
    """Return a launch for one tensor of this size; a thread keeps its last few."""
    held: dict[Any, cpu.Launch] = _launches.__dict__.setdefault("held", {})
    key = (id(program), tuple(types.items()), totals, size)
    launch = held.pop(key, None)
    if launch is None:
        launch = cpu.Launch(
            cpu.compiled(program, types, totals),
            [size],
            arrays=len(program.variables) - len(totals),
            slots=len(program.slots),
            totals=len(totals),
        )
    held[key] = launch
    while len(held) > 32:
        held.pop(next(iter(held)))
    return launch
