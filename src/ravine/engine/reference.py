"""The reference executor: the equations themselves, called with whole tensors.

It works on any device and any dtype that PyTorch computes with, is differentiable, and shares no step
of the lowering with the compiled executors, which makes it what they are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ravine.engine.functions import REDUCTIONS
from ravine.engine.program import Program, wrong_count


def evaluate(
    program: Program,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    equations: Sequence[Callable[..., Any]] | None = None,
) -> dict[str, Tensor]:
    """Return the new value of every variable, and of every number, that a program writes.

    Args:
        program: the equations in order.
        tensors: the old values. A variable that is missing must not be used by any equation that
            its hyperparameters leave at work.
        values: the hyperparameters, the `RUNTIME` ones and the numbers among them.
        equations: what to call in the place of the equations' own functions.
    """
    current: dict[str, Any] = dict(tensors)
    for number, stage in enumerate(program.stages):
        equation = stage.equation
        call = equation.reference if equations is None else equations[number]
        arguments = [current.get(name) for name in stage.reads]
        numbers = {name: values[name] for name in equation.hyperparameters}
        for name in (*stage.numbers, *stage.shared):
            # As a tensor it divides by zero as tensors do.
            numbers[name] = torch.as_tensor(numbers[name], dtype=torch.float64)
        result = call(*arguments, **numbers)
        results = result if isinstance(result, tuple) else (result,)
        written = (*stage.writes, *stage.numbers, *stage.shared)
        if len(results) != len(written):
            raise wrong_count(stage, len(results))
        current.update(zip(written, results, strict=True))
    return {
        name: value
        for name, value in current.items()
        if name not in program.private and value is not None and value is not tensors.get(name)
    }


class Unknown(Exception):  # noqa: N818 (a signal, not a failure)
    """A reduction was asked for whose total is not known yet."""

    def __init__(self, name: str, kind: str, total: float) -> None:
        super().__init__(name)
        self.name = name
        self.kind = kind
        self.total = total
        """What this tensor adds to it."""


class Reducing:
    """A program whose reductions are given, and which stops at the first one that is not.

    So that totals can be added up over tensors that do not come together: over the weights of a
    model, or over processes.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: Mapping[str, float] = {}
        self._calls = 0
        self._equations = [
            partial(self._call, self._bound(stage.equation, f"s{number}_"))
            for number, stage in enumerate(program.stages)
        ]

    def evaluate(
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], known: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Return what `evaluate` does; raise `Unknown` where a total is missing in ``known``."""
        self._known = known
        return evaluate(self._program, tensors, values, self._equations)

    def _call(self, function: Callable[..., Any], *args: Any, **numbers: Any) -> Any:
        self._calls = 0
        return function(*args, **numbers)

    def _bound(self, equation: Any, prefix: str) -> Callable[..., Any]:
        if not equation.reduces:
            reference: Callable[..., Any] = equation.reference
            return reference
        bound: Callable[..., Any] = equation.bound(
            {kind: partial(self._reduce, prefix, kind) for kind in REDUCTIONS}
        )
        return bound

    def _reduce(self, prefix: str, kind: str, x: Any) -> Tensor:
        # The same name as in the lowering: calls are counted in the order they are reached.
        name = f"{prefix}total{self._calls}"
        self._calls += 1
        if name not in self._known:
            wide = torch.as_tensor(x).detach().to(torch.float64)
            total = wide.square().sum() if kind == "tensor_norm" else wide.sum()
            raise Unknown(name, kind, float(total))
        return torch.as_tensor(self._known[name], dtype=torch.float64)
