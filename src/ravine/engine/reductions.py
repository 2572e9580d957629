"""Numbers that an equation takes from all elements: what they are, and the sweeps that find them.

A call such as ``tensor_norm(u)`` becomes a number (`Reduction`) that is known only when every element
of u has been seen. The engine then runs the same equation twice: a first sweep goes as far as u and
adds up, the last one goes to the end. A reduction that needs another one is a level further.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ravine.engine.equation import Equation
from ravine.engine.functions import REDUCTIONS


@dataclass(frozen=True)
class Reduction:
    """A number that comes from all elements of a tensor or of the model."""

    name: str  # of the number, among the hyperparameters
    kind: str  # a name in `REDUCTIONS`
    variable: str  # what is added up, among the elements
    level: int  # the sweep that finds it, from 1

    @property
    def of_model(self) -> bool:
        """Whether it is one number for all tensors."""
        return self.kind == "model_sum"

    @property
    def squared(self) -> bool:
        """Whether it is squares that are added up."""
        return self.kind == "tensor_norm"


class Hoist(ast.NodeTransformer):
    """Takes the reductions out of an expression, inner ones first, and puts names in their place."""

    def __init__(
        self,
        equation: Equation,
        decide: Callable[[ast.expr], bool],
        name_of: Callable[[ast.Call, str], ast.expr],
    ) -> None:
        self._equation = equation
        self._decide = decide
        self._name_of = name_of

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        if not any(_reduces(self._equation, child) for child in ast.walk(node)):
            return node
        taken: ast.AST = self.visit(node.body if self._decide(node.test) else node.orelse)
        return taken

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return (
            self._name_of(node, self._equation.called(node))
            if _reduces(self._equation, node)
            else node
        )


def _reduces(equation: Equation, node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and equation.called(node) in REDUCTIONS


def names(text: str) -> set[str]:
    """Return the names in statements or an expression."""
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def live(lines: Sequence[str], wanted: Iterable[str]) -> tuple[tuple[str, ...], set[str]]:
    """Return the assignments that the wanted names need, and the names that must be there before."""
    needed = set(wanted)
    kept: list[str] = []
    for line in reversed(lines):
        statement = ast.parse(line).body[0]
        assert isinstance(statement, ast.Assign)
        targets = {n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if targets & needed:
            kept.append(line)
            used = {n.id for n in ast.walk(statement.value) if isinstance(n, ast.Name)}
            needed = (needed - targets) | used
    return tuple(reversed(kept)), needed
