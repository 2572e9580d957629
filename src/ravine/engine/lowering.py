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
from ravine.engine.functions import HOST
from ravine.engine.reductions import Hoist, Reduction, names

RUNTIME = ("t", "lr", "norm")
"""Numbers that may change from step to step: never a reason to compile again."""

_SCOPES = (
    ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr,
    ast.Starred, ast.Await, ast.Yield, ast.YieldFrom, ast.JoinedStr, ast.Dict, ast.Set,
)  # fmt: skip
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


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


class _Lowering:
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
            name: _plain(value)
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
        outputs = [ast.unparse(self.element(part)) for part in parts[:count]]
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
        text = ast.unparse(self.element(value))
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

    def level(self, text: str) -> int:
        """Return the sweep after which an expression is known; 0 where it needs none."""
        return max((self.levels.get(name, 0) for name in names(text)), default=0)

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
        text = ast.unparse(self.element(argument))
        self.body.append(f"{variable} = {text}")
        self.levels[name] = self.level(text) + 1
        self.reductions.append(Reduction(name, kind, variable, self.levels[name]))
        self.scalar_names.add(name)
        return ast.copy_location(ast.Name(name, ast.Load()), call)

    # -- expressions --------------------------------------------------------------------------

    def is_scalar(self, node: ast.AST) -> bool:
        for child in ast.walk(node):
            if isinstance(child, _SCOPES):
                raise self.equation.fail(
                    child, f"has {ast.unparse(child)!r}, which is not arithmetic"
                )
        called = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
        for child in ast.walk(node):
            if isinstance(child, ast.Name) and id(child) not in called:
                if child.id in self.tensors:
                    return False
                if child.id not in self.scalar_names and child.id not in self.constants:
                    if any(  # the module in math.pi or torch.sqrt is no operand
                        isinstance(n, ast.Attribute) and n.value is child for n in ast.walk(node)
                    ):
                        continue
                    raise self.equation.fail(
                        child,
                        f"uses the unknown name {child.id!r}",
                        "make it a hyperparameter, or a number at module level",
                    )
        return True

    def decide(self, test: ast.expr) -> bool:
        if not self.is_scalar(test):
            raise self.equation.fail(
                test, "has an if on a tensor's elements", "use where(condition, a, b)"
            )
        used = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
        unknown = sorted(used - self.static.keys())
        if unknown:
            raise self.equation.fail(
                test,
                f"has an if on {', '.join(unknown)}, which changes from step to step",
                "use where(condition, a, b)",
            )
        code = compile(ast.Expression(self.canonical(test)), "<equation>", "eval")
        return bool(eval(code, {}, self.static))

    def canonical(self, node: ast.expr) -> ast.expr:
        """Return a copy in which every call has its canonical name and module numbers are values."""
        equation = self.equation

        class Rename(ast.NodeTransformer):
            def visit_Call(self, call: ast.Call) -> ast.AST:
                name = equation.called(call)
                arguments = [self.visit(a) for a in call.args]
                return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), arguments, []), call)

            def visit_BinOp(self, operation: ast.BinOp) -> ast.AST:
                # Python raises where the tensors' arithmetic gives infinity or NaN.
                name = {ast.Div: "divide", ast.Pow: "raise_to"}.get(type(operation.op))
                self.generic_visit(operation)
                if name is None:
                    return operation
                arguments = [operation.left, operation.right]
                return ast.copy_location(
                    ast.Call(ast.Name(name, ast.Load()), arguments, []), operation
                )

            def visit_Attribute(self, attribute: ast.Attribute) -> ast.AST:
                if isinstance(attribute.value, ast.Name):
                    module = equation.names.get(attribute.value.id)
                    value = getattr(module, attribute.attr, None)
                    if isinstance(value, Real):
                        return ast.copy_location(ast.Constant(_plain(value)), attribute)
                raise equation.fail(attribute, f"uses {ast.unparse(attribute)}")

        return ast.fix_missing_locations(Rename().visit(copy.deepcopy(node)))  # type: ignore[no-any-return]

    def slot(self, node: ast.expr) -> ast.expr:
        """Return the name of the scalar that holds a number of the host."""
        text = ast.unparse(self.canonical(node))
        if text not in self.slots:
            name = f"{self.prefix}{len(self.slot_names)}"
            self.slot_names.append(name)
            self.slots[text] = name
            self.levels[name] = self.level(text)
            self.host.append(f"{name} = {text}")
        return ast.copy_location(ast.Name(self.slots[text], ast.Load()), node)

    def element(self, node: ast.expr) -> ast.expr:
        """Rewrite an expression for one element, its scalar parts replaced by slots."""
        if isinstance(node, ast.IfExp):
            return self.element(node.body if self.decide(node.test) else node.orelse)
        if isinstance(node, ast.Name) and node.id in self.tensors:
            return node
        if self.is_scalar(node):
            if isinstance(node, ast.Constant) and _exact(node.value):
                literal = ast.Constant(float(node.value))  # type: ignore[arg-type]
                return ast.Call(ast.Name("number", ast.Load()), [literal], [])
            return self.slot(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS):
            if isinstance(node.op, ast.Pow):
                return self.power(node)
            if isinstance(node.op, ast.Div) and self.is_scalar(node.right):
                return self.times_reciprocal(node)
            if _is_condition(node.left) and _is_condition(node.right):
                raise self.equation.fail(
                    node,
                    "has arithmetic between two conditions, on which Python and PyTorch differ",
                    "use where(condition, 1.0, 0.0)",
                )
            return ast.BinOp(self.element(node.left), node.op, self.element(node.right))
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            return ast.BinOp(self.condition(node.left), node.op, self.condition(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd, ast.Invert)):
            if isinstance(node.op, ast.Invert):
                call = ast.Call(ast.Name("negation", ast.Load()), [self.element(node.operand)], [])
                return ast.copy_location(call, node)
            return ast.UnaryOp(node.op, self.element(node.operand))
        if (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], _COMPARISONS)
        ):
            return ast.Compare(
                self.element(node.left), node.ops, [self.element(node.comparators[0])]
            )
        if isinstance(node, ast.Call):
            name = self.equation.called(node)
            return ast.Call(ast.Name(name, ast.Load()), [self.element(a) for a in node.args], [])
        raise self.equation.fail(
            node,
            f"has {ast.unparse(node)!r}, which cannot be computed element by element",
            "use + - * / **, one comparison at a time joined by & and |, and known functions",
        )

    def times_reciprocal(self, node: ast.BinOp) -> ast.expr:
        """Divide an element by a number of the host: one division a step, not one an element."""
        one = ast.copy_location(ast.Constant(1.0), node)
        reciprocal = ast.copy_location(ast.BinOp(one, ast.Div(), node.right), node)
        return ast.BinOp(self.element(node.left), ast.Mult(), self.slot(reciprocal))

    def condition(self, node: ast.expr) -> ast.expr:
        """Rewrite an operand of ``&`` or ``|``; a scalar one arrives as a number, 0 or 1."""
        if not self.is_scalar(node):
            return self.element(node)
        zero = ast.Call(ast.Name("number", ast.Load()), [ast.Constant(0.0)], [])
        return ast.Compare(self.element(node), [ast.NotEq()], [zero])

    def power(self, node: ast.BinOp) -> ast.expr:
        base = self.element(node.left)
        exponent = node.right
        if self.is_scalar(exponent) and isinstance(exponent, ast.Constant):
            for whole in (2, 3, 4):
                if exponent.value == whole:
                    return ast.Call(ast.Name(f"power{whole}", ast.Load()), [base], [])
            if exponent.value == 0.5:
                return ast.Call(ast.Name("sqrt", ast.Load()), [base], [])
        return ast.Call(ast.Name("power", ast.Load()), [base, self.element(exponent)], [])


def _plain(value: Real) -> int | float:
    """Return a number as Python's own, which prints as a literal."""
    return value if isinstance(value, int) else float(value)


def _is_condition(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Compare)
        or (isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)))
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert))
    )


def _exact(value: object) -> bool:
    """Whether a literal is the same number in every float type."""
    return isinstance(value, (int, float)) and abs(value) <= 1024 and float(value * 8).is_integer()
