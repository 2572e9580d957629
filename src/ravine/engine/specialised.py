"""What is left of a program for given hyperparameters: a last pass, and the sweeps before it.

A pass is steps on the elements and one function on the host, which computes in float64 every number
that the steps use. A sweep is a pass that stores nothing and adds up what reductions ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ravine.engine.equation import Equation
from ravine.engine.functions import host_number
from ravine.engine.host import HostFunction, nothing
from ravine.engine.lowering import RUNTIME, Lowered, lower
from ravine.engine.reductions import Reduction, live, names
from ravine.errors import EquationError

if TYPE_CHECKING:
    from ravine.engine.program import Program


@dataclass(frozen=True)
class Stage:
    """An equation with the variables that its tensors stand for and its outputs are written to.

    Attributes:
        numbers: keyword names that are state of each weight; the equation returns their new values
            after the tensors.
        shared: keyword names that are state of the whole optimizer, returned last.
    """

    equation: Equation
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A stage as it is left for given hyperparameters."""

    lowered: Lowered
    parameters: tuple[str, ...]  # the equation's own names of the tensors it uses
    inputs: tuple[str, ...]  # the variables that they stand for
    outputs: tuple[tuple[str, str], ...]  # (variable, expression)


@dataclass(frozen=True)
class Specialised:
    """A program for given hyperparameters: what remains to be done per element."""

    program: Program
    steps: tuple[Step, ...]
    loads: tuple[str, ...]  # variables whose old value is needed
    stores: tuple[str, ...]  # variables that get a new value
    slots: tuple[str, ...]
    scalars: HostFunction = field(compare=False)
    needs: frozenset[str] = frozenset()  # which of RUNTIME the scalars depend on
    totals: tuple[Reduction, ...] = ()  # of a sweep: what it adds up
    sweeps: tuple[Specialised, ...] = ()  # what has to run before, in this order
    numbers: tuple[str, ...] = ()  # numbers that get a new value, first each weight's, then shared
    advance: HostFunction = field(
        compare=False, default_factory=nothing
    )  # computes those new values
    by_tensor: bool = False  # whether the numbers depend on totals of each tensor
    source: str = ""  # of `scalars` and `advance`

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables that live in memory, in the program's order, and what a sweep adds up."""
        live = {*self.loads, *self.stores}
        summed = tuple(total.variable for total in self.totals)
        return tuple(name for name in self.program.variables if name in live) + summed

    @property
    def touched(self) -> tuple[str, ...]:
        """The variables that this pass or a sweep before it reads or writes."""
        found = set(self.variables).union(*(sweep.loads for sweep in self.sweeps))
        return tuple(name for name in self.program.variables if name in found)

    @property
    def signature(self) -> tuple[Any, ...]:
        """What it does; equal for hyperparameters that decide every ``if`` alike."""
        steps = [
            (step.lowered.equation, step.lowered.body, step.lowered.host, step.outputs)
            for step in self.steps
        ]
        return (*steps, self.source, *(sweep.signature for sweep in self.sweeps))

    @cached_property
    def title(self) -> str:
        """The names of the equations that are left, for people."""
        return " + ".join(step.lowered.equation.name for step in self.steps) or "nothing"


def specialise(program: Program, values: Mapping[str, Any]) -> Specialised:
    """Lower the stages of a program and sort what is left into sweeps and the last pass."""
    plain = {n: host_number(v) for n, v in values.items() if n in program.hyperparameters}
    stages = _lowered(program.stages, plain)
    found = [r for _, lowered in stages for r in lowered.reductions]
    of_tensors = {r.name for r in found if not r.of_model}
    late = frozenset(program.numbers).union(r.name for r in found)
    sweeps = []
    for level in range(1, max((r.level for r in found), default=0) + 1):
        totals = tuple(r for r in found if r.level == level)
        steps = _sweep_steps(stages, {r.variable for r in totals})
        summed = tuple(r.variable for r in totals)
        scalars = _slots(steps, late)
        sweeps.append(
            Specialised(
                program=program,
                steps=steps,
                loads=_loads(program, steps),
                stores=summed,
                slots=tuple(slot for step in steps for slot in step.lowered.slots),
                scalars=scalars,
                needs=frozenset(scalars.needs & set(RUNTIME)),
                totals=totals,
                by_tensor=bool(scalars.needs & of_tensors),
                source=scalars.source,
            )
        )
    steps = _last_steps(stages, program.private)
    written = {variable for step in steps for variable, _ in step.outputs}
    scalars = _slots(steps, late)
    order = tuple(name for stage in program.stages for name in stage.numbers)
    order += tuple(name for stage in program.stages for name in stage.shared)
    numbers = _new_numbers([Step(low, (), (), ()) for _, low in stages], order, late)
    return Specialised(
        program=program,
        steps=steps,
        loads=_loads(program, steps),
        stores=tuple(n for n in program.variables if n in written and n not in program.private),
        slots=tuple(slot for step in steps for slot in step.lowered.slots),
        scalars=scalars,
        needs=frozenset(scalars.needs & set(RUNTIME)),
        sweeps=tuple(sweeps),
        numbers=order,
        advance=numbers,
        by_tensor=bool((scalars.needs | numbers.needs) & of_tensors),
        source=scalars.source + numbers.source,
    )


_Lowerings = list[tuple[Stage, Lowered]]


def _lowered(stages: Sequence[Stage], values: Mapping[str, Any]) -> _Lowerings:
    found = []
    levels: dict[str, int] = {}  # variable -> the sweep after which it is known
    for number, stage in enumerate(stages):
        lowered = lower(
            stage.equation,
            values,
            prefix=f"s{number}_",
            outputs=len(stage.writes),
            numbers=(*stage.numbers, *stage.shared),
            levels={
                name: levels.get(variable, 0)
                for variable, name in zip(stage.reads, stage.equation.tensors, strict=True)
            },
        )
        if len(lowered.outputs) != len(stage.writes) or len(lowered.numbers) != len(
            stage.numbers + stage.shared
        ):
            raise wrong_count(stage, len(lowered.outputs) + len(lowered.numbers))
        levels.update(zip(stage.writes, lowered.levels, strict=True))
        found.append((stage, lowered))
    return found


def wrong_count(stage: Stage, count: int) -> EquationError:
    """Build the error for an equation that does not return what its stage writes."""
    wanted = (*stage.writes, *stage.numbers, *stage.shared)
    return EquationError(
        f"equation {stage.equation.name!r} returns {count} value{'s' if count != 1 else ''}",
        expected=f"{len(wanted)}: {', '.join(wanted)}",
        do="return the new weight and then every state, in the order of the signature",
    )


def _changed(stage: Stage, lowered: Lowered) -> tuple[tuple[str, str], ...]:
    """Return the variables that a stage changes, with their expressions."""
    local = dict(zip(stage.reads, stage.equation.tensors, strict=True))
    return tuple(
        (variable, expression)
        for position, (variable, expression) in enumerate(
            zip(stage.writes, lowered.outputs, strict=True)
        )
        if not lowered.passes_through(position, local.get(variable, ""))
    )


def _step(stage: Stage, lowered: Lowered, outputs: tuple[tuple[str, str], ...]) -> Step | None:
    """Return the part of a stage that some outputs need, or None where there are none."""
    if not outputs:
        return None
    used = set().union(*(names(expression) for _, expression in outputs))
    body, needed = live(lowered.body, used)
    read = [
        (variable, name)
        for variable, name in zip(stage.reads, stage.equation.tensors, strict=True)
        if name in needed
    ]
    return Step(
        replace(lowered, body=body, slots=tuple(s for s in lowered.slots if s in needed)),
        tuple(name for _, name in read),
        tuple(variable for variable, _ in read),
        outputs,
    )


def _last_steps(stages: _Lowerings, private: frozenset[str]) -> tuple[Step, ...]:
    """Return the steps of the last pass, without private variables that nothing after them reads."""
    steps: list[Step] = []
    wanted: set[str] = set()
    for stage, lowered in reversed(stages):
        outputs = tuple(
            p for p in _changed(stage, lowered) if p[0] in wanted or p[0] not in private
        )
        step = _step(stage, lowered, outputs)
        if step is not None:
            steps.append(step)
            wanted.difference_update(variable for variable, _ in outputs)
            wanted.update(step.inputs)
    return tuple(reversed(steps))


def _sweep_steps(stages: _Lowerings, summed: set[str]) -> tuple[Step, ...]:
    """Return the steps up to what is added up, and nothing else."""
    steps: list[Step] = []
    wanted: set[str] = set()
    for stage, lowered in reversed(stages):
        changed = _changed(stage, lowered)
        outputs = tuple(pair for pair in changed if pair[0] in wanted)
        mine = tuple(r.variable for r in lowered.reductions if r.variable in summed)
        step = _step(stage, lowered, (*outputs, *zip(mine, mine, strict=True)))
        if step is not None:
            steps.append(step)
            wanted.difference_update(variable for variable, _ in outputs)
            wanted.update(step.inputs)
    return tuple(reversed(steps))


def _loads(program: Program, steps: Sequence[Step]) -> tuple[str, ...]:
    written: set[str] = set()
    loads: set[str] = set()
    for step in steps:
        loads.update(name for name in step.inputs if name not in written)
        written.update(variable for variable, _ in step.outputs)
    return tuple(name for name in program.variables if name in loads)


def _slots(steps: Sequence[Step], late: frozenset[str]) -> HostFunction:
    """Return the function that computes every slot, in order."""
    wanted = [step.lowered.slots for step in steps]
    return HostFunction(steps, wanted, [slot for slots in wanted for slot in slots], late)


def _new_numbers(steps: Sequence[Step], order: Sequence[str], late: frozenset[str]) -> HostFunction:
    """Return the function that computes the new values of the numbers, in this order."""
    held = [dict(step.lowered.numbers) for step in steps]
    new = {number: name for one in held for number, name in one.items()}
    return HostFunction(steps, [[*one.values()] for one in held], [new[n] for n in order], late)
