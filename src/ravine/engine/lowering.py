"""From an equation and the values of its hyperparameters to what has to be done per element.

Three things happen to the syntax tree, so that the equation can be written as in its paper and
still cost nothing more than the arithmetic on the elements:

* an ``if`` on hyperparameters is decided here; the branch not taken does not exist in the kernel,
* an expression of hyperparameters alone (``1 - beta1**t``) leaves the element's arithmetic and is
  computed once per step, in float64 (`Lowered.host`),
* a literal becomes a number of the tensor's type, and ``x**2`` a product.

A function of all elements (``tensor_norm``) becomes a number of the host, see `engine.reductions`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ravine.engine.equation import RESERVED_NUMBERS, RESERVED_TENSORS, Equation
from ravine.engine.expressions import Expressions, plain
from ravine.engine.functions import HOST
from ravine.engine.masks import unmasked
from ravine.engine.reductions import Hoist, Reduction

RUNTIME = ("t", "lr", "norm", "grad_scale")
"""Numbers that may change from step to step: never a reason to compile again."""


@dataclass(frozen=True)
class Lowered:
    """An equation for given hyperparameters: numbers first, then the elements."""

    equation: Equation
    body: tuple[str, ...]  # statements on the elements
    outputs: tuple[str, ...]  # an expression for each output
    slots: tuple[str, ...]  # the names of the scalars that the statements and outputs use
    host: tuple[str, ...]  # statements that compute them from the hyperparameters
    constants: dict[str, float]  # numbers of the equation's module that `host` uses
    numbers: tuple[tuple[str, str], ...] = ()  # (number that is state, the name of its new value)
    reductions: tuple[Reduction, ...] = ()
    levels: tuple[int, ...] = ()  # the sweep after which each output is known

    def passes_through(self, position: int, name: str) -> bool:
        """Whether an output is nothing but the input of that name, unchanged."""
        return self.outputs[position] == name and not any(
            line.startswith(f"{name} = ") for line in self.body
        )


def lower(
    equation: Equation,
    values: Mapping[str, Any],
    prefix: str = "s",
    *,
    outputs: int | None = None,
    numbers: tuple[str, ...] = (),
    levels: Mapping[str, int] | None = None,
) -> Lowered:
    """Lower an equation for hyperparameter values (those in `RUNTIME` are not needed).

    Args:
        equation: what to lower.
        values: the hyperparameters.
        prefix: begins the names of the scalars, so that those of several equations stay apart.
        outputs: how many tensors it should return; any number if None.
        numbers: hyperparameters that are state: the equation returns their new values last.
        levels: the sweep after which a tensor is known, where it is not the first one.
    """
    return _Lowering(equation, values, prefix, outputs, numbers, levels or {}).run()


class _Lowering(Expressions):
    def __init__(
        self,
        equation: Equation,
        values: Mapping[str, Any],
        prefix: str,
        outputs: int | None,
        numbers: tuple[str, ...],
        levels: Mapping[str, int],
    ) -> None:
        self.equation = equation
        taken = {n.id for n in ast.walk(equation.tree) if isinstance(n, ast.Name)}
        self.total = f"{prefix}total"  # the same for every executor
        if any(name.startswith(self.total) for name in taken):
            raise equation.fail(
                equation.tree, f"has a name that begins with {self.total!r}", "call it otherwise"
            )
        while any(name.startswith(prefix) for name in taken):
            prefix += "_"
        self.prefix = prefix
        self.tensors = set(equation.tensors)
        self.scalar_names = set(equation.hyperparameters)
        self.static = {
            name: value for name, value in values.items() if name not in (*RUNTIME, *numbers)
        } | HOST
        self.constants = {
            name: plain(value)
            for name, value in equation.names.items()
            if isinstance(value, Real) and name not in self.tensors | self.scalar_names
        }
        self.static |= self.constants
        self.host: list[str] = []
        self.slots: dict[str, str] = {}  # text of a number -> the scalar that holds it by now
        self.slot_names: list[str] = []
        self.body: list[str] = []
        self.outputs = outputs
        self.numbers = numbers
        self.new_numbers: list[tuple[str, str]] = []
        self.reductions: list[Reduction] = []
        self.levels = dict(levels)
        self.depth = 0  # of ifs

    def run(self) -> Lowered:
        outputs = self.block(self.equation.tree.body)
        if outputs is None:
            raise self.equation.fail(
                self.equation.tree, "does not end with a return", "return the new values"
            )
        return Lowered(
            equation=self.equation,
            body=tuple(self.body),
            outputs=tuple(outputs),
            slots=tuple(self.slot_names),
            host=tuple(self.host),
            constants=self.constants,
            numbers=tuple(self.new_numbers),
            reductions=tuple(self.reductions),
            levels=tuple(self.level(output) for output in outputs),
        )

    # -- statements ---------------------------------------------------------------------------

    def block(self, statements: list[ast.stmt]) -> list[str] | None:
        for statement in statements:
            if isinstance(statement, ast.Return):
                return self.returned(statement)
            if isinstance(statement, ast.If):
                branch = statement.body if self.decide(statement.test) else statement.orelse
                self.depth += 1
                outputs = self.block(branch)
                self.depth -= 1
                if outputs is not None:
                    return outputs
            elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                self.assign(statement.targets[0], statement.value)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self.assign(statement.target, statement.value)
            elif isinstance(statement, ast.Pass) or (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            ):
                continue
            else:
                raise self.equation.fail(
                    statement,
                    f"has a {type(statement).__name__} statement",
                    "use assignments, if on hyperparameters, and one return",
                )
        return None

    def returned(self, statement: ast.Return) -> list[str]:
        if statement.value is None:
            raise self.equation.fail(statement, "returns nothing", "return the new values")
        value = statement.value
        parts = [
            self.hoisted(part) for part in (value.elts if isinstance(value, ast.Tuple) else [value])
        ]
        count = len(parts)  # where they are too few or too many, that is told by the caller
        if self.outputs is not None and count == self.outputs + len(self.numbers):
            count = self.outputs
        outputs = [ast.unparse(unmasked(self.element(part))) for part in parts[:count]]
        for number, part in zip(self.numbers, parts[count:], strict=False):
            if not self.is_scalar(part):
                raise self.equation.fail(
                    part,
                    f"returns a tensor for {number!r}, which is a number",
                    "return the tensors first, then the numbers, in the order they are declared",
                )
            name = f"{self.prefix}new_{number}"
            self.host.append(f"{name} = {ast.unparse(self.canonical(part))}")
            self.new_numbers.append((number, name))
        return outputs

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        value = self.hoisted(value)
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            if len(target.elts) != len(value.elts):
                raise self.equation.fail(target, "assigns tuples of different lengths")
            if not self.is_scalar(value):
                held = []
                for k, (one, part) in enumerate(zip(target.elts, value.elts, strict=True)):
                    name = ast.copy_location(ast.Name(f"held_{k}", ast.Store()), one)
                    self.assign(name, part)
                    held.append((one, ast.copy_location(ast.Name(f"held_{k}", ast.Load()), part)))
                for one, name in held:
                    self.assign(one, name)
                return
        words = [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
        taken = RESERVED_NUMBERS if self.is_scalar(value) else RESERVED_TENSORS
        for word in words:
            if word in taken:
                raise self.equation.fail(
                    target, f"assigns to {word!r}, a name that the engine uses itself"
                )
        if self.is_scalar(value):
            text = ast.unparse(self.canonical(value))
            self.levels.update(dict.fromkeys(words, self.level(text)))
            self.host.append(f"{ast.unparse(target)} = {text}")
            self.slots.clear()  # a name may stand for another value from here on
            self.scalar_names.update(words)
            self.tensors.difference_update(words)
            self.follow(target, value, words)
            return
        if not isinstance(target, ast.Name):
            raise self.equation.fail(
                target, f"assigns to {ast.unparse(target)}", "assign to one name at a time"
            )
        text = ast.unparse(unmasked(self.element(value)))
        self.levels[target.id] = self.level(text)
        self.body.append(f"{target.id} = {text}")
        self.tensors.add(target.id)
        self.scalar_names.discard(target.id)
        self.static.pop(target.id, None)

    def follow(self, target: ast.expr, value: ast.expr, words: list[str]) -> None:
        """Keep the values of scalars that are known now, for the ifs further down."""
        used = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
        if used <= self.static.keys():
            module = ast.Module(
                [ast.Assign([copy.deepcopy(target)], self.canonical(value))], type_ignores=[]
            )
            exec(compile(ast.fix_missing_locations(module), "<equation>", "exec"), {}, self.static)
        else:
            for name in words:
                self.static.pop(name, None)

    # -- numbers that come from all elements --------------------------------------------------

    def hoisted(self, node: ast.expr) -> ast.expr:
        """Return an expression with numbers in the place of its reductions."""
        if not self.equation.reduces:
            return node
        found: ast.expr = Hoist(self.equation, self.decide, self.reduction).visit(
            copy.deepcopy(node)
        )
        return found

    def reduction(self, call: ast.Call, kind: str) -> ast.expr:
        """Note what a reduction adds up, and return the name of the number that it comes to."""
        argument = call.args[0]
        if self.is_scalar(argument):
            raise self.equation.fail(
                call, f"has {ast.unparse(call)}, which is no expression of the elements"
            )
        if kind == "model_sum" and self.depth:
            raise self.equation.fail(
                call,
                "has a model_sum under an if, which groups may decide differently",
                "take the sum before the if",
            )
        count = len(self.reductions)
        name, variable = f"{self.total}{count}", f"{self.prefix}reduced{count}"
        text = ast.unparse(unmasked(self.element(argument)))
        self.body.append(f"{variable} = {text}")
        self.levels[name] = self.level(text) + 1
        self.reductions.append(Reduction(name, kind, variable, self.levels[name]))
        self.scalar_names.add(name)
        return ast.copy_location(ast.Name(name, ast.Load()), call)
