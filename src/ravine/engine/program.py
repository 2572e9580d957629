"""A program: equations that run one after the other on the same element, in one pass.

An optimizer's step is such a program: clip the gradient, add the penalty's gradient, update, decay,
average. A loss is one with a single equation. An equation that the hyperparameters make idle (a decay
of zero) returns its input unchanged; it and the state only it would need vanish from the kernel.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from ravine.engine.equation import REQUIRED
from ravine.engine.functions import host_number
from ravine.engine.lowering import RUNTIME
from ravine.engine.specialised import Specialised, Stage, Step, specialise, wrong_count
from ravine.errors import EquationError

__all__ = ["Program", "Specialised", "Stage", "Step", "wrong_count"]


_REMEMBERED = 1000
"""Values of hyperparameters of which a program remembers what they come to."""


class Program:
    """Stages over named variables.

    Args:
        stages: the equations in order, each with the names that it writes.
        private: variables whose new value stays in the pass (the gradient is never changed).

    Attributes:
        numbers: hyperparameters that are state of each weight.
        shared: hyperparameters that are state of all weights together.
        reduces: whether an equation asks for numbers that come from all elements.
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
        self.numbers = tuple(name for stage in self.stages for name in stage.numbers)
        self.shared = tuple(name for stage in self.stages for name in stage.shared)
        self.reduces = any(stage.equation.reduces for stage in self.stages)
        self.decisive = self._find_decisive()
        self._cache: dict[tuple[Any, ...], Specialised] = {}
        self._alike: dict[tuple[Any, ...], Specialised] = {}

    def _find_decisive(self) -> tuple[str, ...]:
        """Return the hyperparameters that an ``if`` or a power of an element depends on.

        By name or through assignments.
        """
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
                elif (
                    isinstance(node, ast.BinOp)
                    and isinstance(node.op, ast.Pow)
                    and _names(node.left) - stage.equation.hyperparameters.keys()
                ):
                    names |= _names(node.right)
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
            names -= {*RUNTIME, *stage.numbers, *stage.shared}  # no value of theirs is known
            found |= names & stage.equation.hyperparameters.keys()
        return tuple(name for name in self.hyperparameters if name in found)

    def specialise(self, values: Mapping[str, Any]) -> Specialised:
        """Return what is left to do for these hyperparameters."""
        key = tuple(host_number(values.get(name)) for name in self.decisive)
        found = self._cache.get(key)
        if found is None:
            found = specialise(self, values)
            # Momentum 0.9 and 0.8 decide alike: one kernel, one launch, and a schedule of momentum
            # makes nothing anew.
            found = self._alike.setdefault(found.signature, found)
            if len(self._cache) >= _REMEMBERED:
                self._cache.clear()
            self._cache[key] = found
        return found


def _names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
