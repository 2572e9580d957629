"""One pass over the data for what is wanted of a loss: value, slopes, curvature.

It is a kernel on the CPU or one Triton launch on a GPU, made of the same equation. On a GPU the value
stays there, and the host waits for nothing but the count of elements outside of the loss's domain,
where there is one and it is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ravine.engine.capture import is_capturing
from ravine.engine.choice import choose, is_dense
from ravine.engine.element_types import supports
from ravine.engine.program import Program
from ravine.losses import buffers
from ravine.losses.formula import Formula
from ravine.losses.pass_plan import names_of, plan_for, program_of, wanted_of


class Call(NamedTuple):
    """A call of a loss, without the tensors that it may be differentiated by.

    A tuple, because a frozen dataclass takes a microsecond to make.
    """

    loss: Formula
    target: Tensor
    weight: Tensor | None
    """Neither it nor the target needs a gradient."""
    values: Mapping[str, Any]
    """The hyperparameters."""
    reduction: str = "none"
    scale: float | Tensor = 1.0
    """What the reduced loss and all slopes are multiplied by; a float64 number on the device of the
    tensors where the host does not know it."""
    looks: bool = True
    """Whether an element outside of the loss's domain is an error; not if all were looked at before."""


def value_and_gradient(
    call: Call, inputs: tuple[Tensor, ...], needs: tuple[bool, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the reduced loss and the gradients that are needed."""
    found = _computed(call, inputs, "value", needs)
    return found["value"], [found.get(name) for name in names_of(call.loss).slopes]


def curvature_alone(call: Call, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return the second derivative of every element by its input."""
    return _computed(call, inputs, "curvature", (False,) * len(inputs))["curvature"]


def _computed(
    call: Call, inputs: tuple[Tensor, ...], first: str, needs: tuple[bool, ...]
) -> dict[str, Tensor]:
    """Return an output of the equation, and the slopes that are needed, by name."""
    loss, target, weight, values, reduction, scale, looks = call
    program = program_of(loss, weight is not None, first, needs)
    input = inputs[0]
    if (input.is_cpu or input.is_cuda) and not is_dense(input):
        inputs = (input.detach().contiguous(), *inputs[1:])
    kind = _executor(program, inputs[0])
    if kind != "reference":
        return _one_pass(kind, program, call, inputs)
    inputs = tuple(one.detach() for one in inputs)
    if looks:
        loss.check_domain(inputs, target, weight, values)
    names = names_of(loss)
    with torch.no_grad():
        parts = loss.elements(inputs, target, weight, values)
        found = dict(zip(names.outputs, parts, strict=True))
        if reduction != "none":
            losses = found["value"]
            found["value"] = (losses.sum() * scale).to(losses.dtype)
        for name, one in zip(names.slopes, inputs, strict=True):
            found[name] = (found[name] * scale).to(one.dtype)
        return {name: found[name] for name in wanted_of(loss, first, needs)}


_executors: dict[tuple[Program, torch.dtype, torch.layout, bool], str] = {}


def _executor(program: Program, input: Tensor) -> str:
    """Return which executor runs the pass; asked once for each type."""
    if input.is_cuda:
        if is_capturing(input.device):
            # A launch sends its tables from pinned memory that is written anew for each, and waits for an
            # earlier copy before: a graph would send them as they are when it is replayed.
            return "reference"
    elif not input.is_cpu:
        return "reference"
    key = (program, input.dtype, input.layout, input.is_cuda)
    found = _executors.get(key)
    if found is None:
        found = _executors[key] = choose(program, input).executor
    return found


def _one_pass(
    kind: str, program: Program, call: Call, inputs: tuple[Tensor, ...]
) -> dict[str, Tensor]:
    loss, target, weight, values, reduction, scale, looks = call
    input, *others = inputs
    wide = torch.float64 if input.dtype is torch.float64 else torch.float32
    given = [input, _laid_out(target, input, wide)]
    if others or weight is not None:
        given += [_laid_out(t, input, wide) for t in (*others, weight) if t is not None]
    numbers = {**values, "_scale": 1.0 if isinstance(scale, Tensor) else scale}
    separate = reduction == "none"
    plan = plan_for(kind, program.specialise(numbers), loss, given, wide, separate)
    launch, found = plan.launch, {}
    for k, (name, place, dtype) in enumerate(plan.arrays):
        if place < 0:
            found[name] = array = buffers.take(input, dtype)
        else:
            array = given[place]
        launch.set_addresses(k, (array.data_ptr(),))
    launch.set_scalars(0, plan.program.scalars(numbers))
    if isinstance(scale, Tensor):
        for slot in plan.scales:
            launch.set_scalar(slot, scale)
    launch.run()
    if looks and plan.outside and launch.any(plan.outside):
        loss.check_domain(inputs, target, weight, values)
    if plan.value >= 0:
        found["value"] = launch.total(plan.value, scale, wide)
    return found


def _laid_out(tensor: Tensor, like: Tensor, wide: torch.dtype) -> Tensor:
    """Return a tensor of a type that kernels read, in the memory order of another."""
    if not supports(tensor.dtype):
        tensor = tensor.to(wide)
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
