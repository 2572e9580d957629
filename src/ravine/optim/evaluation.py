"""Optimizers whose weights in training are not the ones to evaluate with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from ravine.engine.equation import Equation
from ravine.engine.program import Program, Stage
from ravine.engine.reference import evaluate
from ravine.errors import RavineError
from ravine.optim.optimizer import Optimizer
from ravine.optim.plan import Plan
from ravine.rules import Rule

MODE = "train_mode"
"""The entry of a group that says which weights are in place; its name is the published package's."""


class EvaluatedOptimizer(Optimizer):
    """An optimizer that trains at one point and is evaluated at another, see `train` and `eval`.

    It begins in training. The model's weights are those of training after `train`, and those to
    evaluate, or to save as the result, after `eval`.
    """

    _to_evaluation: Program
    _to_training: Program

    def __init_subclass__(cls, rule: Rule | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(rule=rule, **kwargs)
        if rule is not None and rule.evaluation is not None:
            cls._to_evaluation, cls._to_training = map(_program, rule.evaluation)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            present = self.param_groups[0][MODE] if self.param_groups else True
            param_group = {MODE: present, **param_group}
        super().add_param_group(param_group)

    def train(self) -> None:
        """Put the weights of training in place; nothing happens where they are."""
        self._turn(self._to_training, training=True)

    def eval(self) -> None:
        """Put the weights to evaluate with in place; nothing happens where they are."""
        self._turn(self._to_evaluation, training=False)

    @property
    def averages(self) -> bool:
        return True

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the weights to evaluate with in place, until the block ends.

        With the option ``average`` it is the average that this option keeps.
        """
        if super().averages:
            with super().averaged():
                yield
            return
        groups = [group for group in self.param_groups if group[MODE]]
        kept = [(w, w.detach().clone()) for group in groups for w in group["params"]]
        self.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, old in kept:
                    weight.copy_(old)
            for group in groups:
                group[MODE] = True

    def load_state_dict(self, state_dict: dict[str, Any], *, keep: Collection[str] = ()) -> None:
        """Load what `state_dict` has returned; the weights must be those of the same moment."""
        super().load_state_dict(state_dict, keep=keep)
        for group in self.param_groups:
            group.setdefault(MODE, True)

    def _gathered(self) -> Plan | None:
        self._begin()
        return super()._gathered()

    def _begin(self) -> None:
        for number, group in enumerate(self.param_groups):
            if not group[MODE]:
                raise RavineError(
                    "the weights are those to evaluate with",
                    where=f"{type(self).__name__}.step, group {number}",
                    do="call optimizer.train() before training goes on",
                )

    @torch.no_grad()
    def _turn(self, program: Program, *, training: bool) -> None:
        names = {name: self.rule.state_names.get(name, name) for name in self.rule.states}
        for group in self.param_groups:
            if group[MODE] is training:
                continue
            for weight in group["params"]:
                held = self.state.get(weight, {})
                stored = {"w": weight.detach()}
                stored |= {n: held[names[n]] for n in program.variables if names.get(n) in held}
                if len(stored) < len(program.variables):
                    continue  # never stepped: both are where it began
                # In float64, so that turning back and forth does not wear the weights down.
                wide = {name: _real(tensor).double() for name, tensor in stored.items()}
                _real(stored["w"]).copy_(evaluate(program, wide, group)["w"])
            group[MODE] = training


def _program(function: Callable[..., Any]) -> Program:
    equation = Equation(function)
    return Program([Stage(equation, equation.tensors, ("w",))])


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
