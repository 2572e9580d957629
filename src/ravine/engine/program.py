"""A program: equations that run one after the other on the same element, in one pass.

An optimizer's step is such a program: clip the gradient, add the penalty's gradient, update, decay,
average. A loss is one with a single equation. An equation that the hyperparameters make idle (a decay
of zero) returns its input unchanged; it and the state only it would need vanish from the kernel.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ravine.engine.equation import REQUIRED, Equation
from ravine.engine.functions import HOST
from ravine.engine.lowering import RUNTIME, Lowered, lower
from ravine.errors import EquationError


@dataclass(frozen=True)
class Stage:
    """An equation with the variables that its tensors stand for and its outputs are written to."""

    equation: Equation
    reads: tuple[str, ...]
    writes: tuple[str, ...]


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
    scalars: Callable[[Mapping[str, Any]], tuple[float, ...]] = field(compare=False)
    needs: frozenset[str] = frozenset()  # which of RUNTIME the scalars depend on

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables that live in memory, in the program's order."""
        live = {*self.loads, *self.stores}
        return tuple(name for name in self.program.variables if name in live)

    @property
    def signature(self) -> tuple[Any, ...]:
        """What it does; equal for hyperparameters that decide every ``if`` alike."""
        return tuple(
            (step.lowered.equation, step.lowered.body, step.lowered.host, step.outputs)
            for step in self.steps
        )

    @cached_property
    def title(self) -> str:
        """The names of the equations that are left, for people."""
        return " + ".join(step.lowered.equation.name for step in self.steps) or "nothing"


_REMEMBERED = 1000
"""Values of hyperparameters of which a program remembers what they come to."""


class Program:
    """Stages over named variables.

    Args:
        stages: the equations in order, each with the names that it writes.
        private: variables whose new value stays in the pass (the gradient is never changed).
    """

    def __init__(self, stages: Iterable[Stage], private: Iterable[str] = ()) -> None:
        self.stages = tuple(stages)
        self.private = frozenset(private)
        self.variables: tuple[str, ...] = ()
        self.hyperparameters: dict[str, Any] = {}
        for stage in self.stages:
            for name in (*stage.reads, *stage.writes):
                if name not in self.variables:
                    self.variables += (name,)
            for name, default in stage.equation.hyperparameters.items():
                if self.hyperparameters.get(name, REQUIRED) is REQUIRED:
                    self.hyperparameters[name] = default
        self.decisive = self._find_decisive()
        self._cache: dict[tuple[Any, ...], Specialised] = {}
        self._alike: dict[tuple[Any, ...], Specialised] = {}

    def _find_decisive(self) -> tuple[str, ...]:
        """Return the hyperparameters that an ``if`` depends on, by name or through assignments."""
        found: set[str] = set()
        for stage in self.stages:
            try:
                tree = stage.equation.tree
            except EquationError:  # only the reference can run it, which needs none of this
                continue
            nodes = list(ast.walk(tree))
            names: set[str] = set()
            for node in nodes:
                if isinstance(node, (ast.If, ast.IfExp)):
                    names |= _names(node.test)
            before = -1
            while len(names) != before:
                before = len(names)
                for node in nodes:
                    if isinstance(node, ast.Assign):
                        targets = node.targets
                    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
                        targets = [node.target]
                    else:
                        continue
                    if node.value and names & set().union(*map(_names, targets)):
                        names |= _names(node.value)
            found |= names & stage.equation.hyperparameters.keys()
        return tuple(name for name in self.hyperparameters if name in found)

    def specialise(self, values: Mapping[str, Any]) -> Specialised:
        """Return what is left to do for these hyperparameters."""
        key = tuple(_hashable(values.get(name)) for name in self.decisive)
        found = self._cache.get(key)
        if found is None:
            found = self._specialise(values)
            # Momentum 0.9 and 0.8 decide alike: one kernel, one launch, and a schedule of momentum
            # makes nothing anew.
            found = self._alike.setdefault(found.signature, found)
            if len(self._cache) >= _REMEMBERED:
                self._cache.clear()
            self._cache[key] = found
        return found

    def _specialise(self, values: Mapping[str, Any]) -> Specialised:
        steps: list[Step] = []
        for number, stage in enumerate(self.stages):
            lowered = lower(stage.equation, values, prefix=f"s{number}_")
            if len(lowered.outputs) != len(stage.writes):
                raise wrong_count(stage, len(lowered.outputs))
            local = dict(zip(stage.reads, stage.equation.tensors, strict=True))
            outputs = tuple(
                (variable, expression)
                for position, (variable, expression) in enumerate(
                    zip(stage.writes, lowered.outputs, strict=True)
                )
                if not lowered.passes_through(position, local.get(variable, ""))
            )
            if outputs:
                text = "\n".join([*lowered.body, *(expression for _, expression in outputs)])
                used = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
                read = [(v, name) for v, name in local.items() if name in used]
                parameters = tuple(name for _, name in read)
                steps.append(Step(lowered, parameters, tuple(v for v, _ in read), outputs))
        written: set[str] = set()
        loads: set[str] = set()
        for step in steps:
            loads.update(name for name in step.inputs if name not in written)
            written.update(variable for variable, _ in step.outputs)
        scalars, needs = self._scalars(steps)
        return Specialised(
            program=self,
            steps=tuple(steps),
            loads=tuple(name for name in self.variables if name in loads),
            stores=tuple(n for n in self.variables if n in written and n not in self.private),
            slots=tuple(slot for step in steps for slot in step.lowered.slots),
            scalars=scalars,
            needs=frozenset(needs),
        )

    def _scalars(
        self, steps: list[Step]
    ) -> tuple[Callable[[Mapping[str, Any]], tuple[float, ...]], set[str]]:
        """Compile the one function that computes every scalar of the steps in float64."""
        lines = ["def scalars(__values__):"]
        needs: set[str] = set()
        scope: dict[str, Any] = HOST | {"inf": math.inf, "nan": math.nan}  # as literals print
        for k, step in enumerate(steps):
            scope[f"__constants_{k}__"] = step.lowered.constants
            text = "\n".join(step.lowered.host)
            used = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
            mine = used & step.lowered.equation.hyperparameters.keys()
            needs |= mine & set(RUNTIME)
            lines += [f"    {name} = __values__[{name!r}]" for name in sorted(mine)]
            constants = sorted(used & step.lowered.constants.keys())
            lines += [f"    {name} = __constants_{k}__[{name!r}]" for name in constants]
            lines += [f"    {line}" for line in step.lowered.host]
        slots = "".join(f"{slot}, " for step in steps for slot in step.lowered.slots)
        lines.append(f"    return ({slots})")
        exec(compile("\n".join(lines), "<scalars>", "exec"), scope)
        return scope["scalars"], needs


def wrong_count(stage: Stage, count: int) -> EquationError:
    """Build the error for an equation that does not return what its stage writes."""
    return EquationError(
        f"equation {stage.equation.name!r} returns {count} value{'s' if count != 1 else ''}",
        expected=f"{len(stage.writes)}: {', '.join(stage.writes)}",
        do="return the new weight and then every state, in the order of the signature",
    )


def _names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
