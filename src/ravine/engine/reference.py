"""The reference executor: the equations themselves, called with whole tensors.

It works on any device and any dtype that PyTorch computes with, is differentiable, and shares no step
of the lowering with the compiled executors, which makes it what they are tested against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ravine.engine.program import Program, wrong_count


def evaluate(
    program: Program, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the new value of every variable that a program writes.

    Args:
        program: the equations in order.
        tensors: the old values. A variable that is missing must not be used by any equation that
            its hyperparameters leave at work.
        values: the hyperparameters, the `RUNTIME` ones among them.
    """
    current: dict[str, Any] = dict(tensors)
    for stage in program.stages:
        equation = stage.equation
        arguments = [current.get(name) for name in stage.reads]
        numbers = {name: values[name] for name in equation.hyperparameters}
        result = equation.reference(*arguments, **numbers)
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(stage.writes):
            raise wrong_count(stage, len(results))
        current.update(zip(stage.writes, results, strict=True))
    return {
        name: value
        for name, value in current.items()
        if name not in program.private and value is not None and value is not tensors.get(name)
    }
