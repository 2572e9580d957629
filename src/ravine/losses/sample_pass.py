# mypy: disable-error-code="no-untyped-call"
"""One pass over samples that lie one after the other: an equation of each element, on the CPU or a GPU.

A sample is to the engine what a weight is to an optimizer's step: a tensor with a row of numbers and with
totals of its own. On a GPU both stay there, and the host waits for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ravine.engine.capture import is_capturing
from ravine.engine.choice import choose, executor
from ravine.engine.element_types import number_type
from ravine.engine.equation import Equation
from ravine.engine.launch import Launch
from ravine.engine.program import Program, Specialised, Stage
from ravine.losses import buffers

MANY, SHORT = 1024, 256
"""A pass is not worth its tables, which have a row for each sample, for more samples of fewer elements."""

KEPT = 16
"""Plans that a thread keeps."""


class Plan(NamedTuple):
    """A launch for samples of one size, and the order of an equation's numbers in a row."""

    program: Specialised
    launch: Launch
    order: list[str]


class SamplePass:
    """An equation of each element, whose results are added up for each sample or written.

    Args:
        equation: ``(tensors, *, numbers) -> results``; it joins no two numbers.
        added: how the results are called, if their sums are wanted.
        written: how the one result is called, if it is wanted itself.
        counts: what is wanted of the sums is how many results are not 0, which costs less.
    """

    def __init__(
        self,
        equation: Equation,
        *,
        added: tuple[str, ...] = (),
        written: str = "",
        counts: bool = False,
    ) -> None:
        self._tensors, self._numbers = equation.tensors, tuple(equation.hyperparameters)
        self._added, self._written, self._counts = added, written, counts
        self._program = Program([Stage(equation, equation.tensors, added or (written,))])
        self._plans = threading.local()
        self._served: dict[tuple[torch.dtype, bool], bool] = {}

    def serves(self, input: Tensor) -> bool:
        """Whether this can be run on samples (N, ...) like ``input``."""
        samples, size = len(input), input.shape[1:].numel()
        if not size or (samples > MANY and size < SHORT) or not (input.is_cpu or input.is_cuda):
            return False
        if is_capturing(input.device):
            return False
        key = input.dtype, input.is_cuda
        if key not in self._served:
            chosen = choose(self._program, input.detach().contiguous())
            self._served[key] = chosen.executor != "reference"
        return self._served[key]

    def __call__(self, tensors: Sequence[Tensor], numbers: Mapping[str, float | Tensor]) -> Tensor:
        """Return the sums (results, N) in float64, or the result, like the first tensor.

        Args:
            tensors: (N, ...), contiguous, in float types, on one device.
            numbers: for all samples, or float64 (N,) for each, where the tensors are.
        """
        first = tensors[0]
        samples, size = len(first), first.shape[1:].numel()
        plan = self._plan(tensors, samples, size)
        launch = plan.launch
        given = [*tensors]
        if self._written:
            given.append(buffers.take(first, first.dtype))
        for k, tensor in enumerate(given):
            start, step = tensor.data_ptr(), size * tensor.itemsize
            launch.set_addresses(k, range(start, start + samples * step, step))
        if self._numbers:
            columns = []
            for name in plan.order:
                number = numbers[name]
                if not isinstance(number, Tensor):
                    number = first.new_full((samples,), number, dtype=torch.float64)
                columns.append(number)
            launch.set_scalar_table(torch.stack(columns, 1))
        launch.run()
        return given[-1] if self._written else launch.tensor_totals()

    def _plan(self, tensors: Sequence[Tensor], samples: int, size: int) -> Plan:
        first = tensors[0]
        key = (samples, size, first.get_device(), *(tensor.dtype for tensor in tensors))
        held: dict[Any, Plan] = self._plans.__dict__.setdefault("held", {})
        plan = held.pop(key, None)
        if plan is None:
            plan = self._made(tensors, samples, size)
        held[key] = plan
        while len(held) > KEPT:
            held.pop(next(iter(held)))
        return plan

    def _made(self, tensors: Sequence[Tensor], samples: int, size: int) -> Plan:
        first = tensors[0]
        wide = number_type(first.dtype)
        types = {name: t.dtype for name, t in zip(self._tensors, tensors, strict=True)}
        types |= dict.fromkeys(self._added, torch.bool if self._counts else wide)
        if self._written:
            types[self._written] = first.dtype
        # The engine computes what depends on numbers alone on the host, which here does not know them;
        # so the equation has to use them as they are. In which order it does is seen from these.
        marks = {name: k + 0.5 for k, name in enumerate(self._numbers)}
        names = {mark: name for name, mark in marks.items()}
        program = self._program.specialise(marks)
        order = [names[mark] for mark in program.scalars(marks)]
        module = executor("cpu" if first.is_cpu else "gpu")
        launch = module.Launch(
            module.compiled(program, types, self._added),
            [size] * samples,
            arrays=len(tensors) + bool(self._written),
            slots=len(program.slots),
            rows=samples,
            totals=len(self._added),
            device=first.device,
        )
        launch.set_rows(range(samples))
        return Plan(program, launch, order)
