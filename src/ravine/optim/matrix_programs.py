"""The passes of a matrix rule: programs of elementwise equations, and calls between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ravine.engine.program import Program, Stage
from ravine.optim.options import BEFORE, around_matrices
from ravine.rules.matrix_rule import MatrixCall, MatrixRule


class MatrixPrograms:
    """A step of a matrix rule.

    Attributes:
        rule: the rule.
        steps: its programs and calls, in order; the options are part of the first program and of the
            one that writes the weight.
        programs: the programs among them.
        hyperparameters: every name that a user gives values to, with its default.

    ``scaled`` if the gradient is that of a loss times ``grad_scale``.
    """

    def __init__(self, rule: MatrixRule, *, scaled: bool = False) -> None:
        self.rule = rule
        of_gradient, before, after = around_matrices(rule.hyperparameters, scaled=scaled)
        self.steps: list[Program | MatrixCall] = []
        stages: list[Stage] = list(of_gradient)
        for part in rule.parts:
            if isinstance(part, MatrixCall):
                self._close(stages)
                self.steps.append(part)
            elif "w" in part.writes:
                # `cautious` asks for the gradient once more; without it the engine drops that.
                again = of_gradient if self.steps else []
                stages += [*again, *before, part, *after]
            else:
                stages.append(part)
        self._close(stages)
        self.programs = [step for step in self.steps if isinstance(step, Program)]
        self.hyperparameters: dict[str, Any] = dict(rule.defaults_of_parts)
        for program in self.programs:
            for name, default in program.hyperparameters.items():
                if name not in ("t", "norm", "grad_scale"):
                    self.hyperparameters.setdefault(name, default)
        self._signatures: dict[tuple[Any, ...], Any] = {}

    def _close(self, stages: list[Stage]) -> None:
        if stages:
            self.steps.append(Program(stages, private=("g", BEFORE)))
            stages.clear()

    def specialised(self, group: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what is left of each program for these hyperparameters."""
        return tuple(program.specialise(group) for program in self.programs)
