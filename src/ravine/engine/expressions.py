"""The expressions of an equation, rewritten for one element; their numbers go to the host."""

from __future__ import annotations

import ast
import copy
from numbers import Real
from typing import Any

from ravine.engine.equation import Equation
from ravine.engine.reductions import names

_SCOPES = (
    ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr,
    ast.Starred, ast.Await, ast.Yield, ast.YieldFrom, ast.JoinedStr, ast.Dict, ast.Set,
)  # fmt: skip
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


class Expressions:
    """What is known of an equation's names so far, and how expressions on them are rewritten.

    Attributes:
        equation: where the expressions are from.
        tensors: names that stand for elements.
        scalar_names: names that stand for numbers of the host.
        constants: numbers of the equation's module.
        static: the values of numbers that do not change from step to step.
        host: statements that compute the numbers.
        levels: the sweep after which a name is known, where it is not the first.
    """

    equation: Equation
    tensors: set[str]
    scalar_names: set[str]
    constants: dict[str, float]
    static: dict[str, Any]
    host: list[str]
    levels: dict[str, int]
    prefix: str
    slots: dict[str, str]  # text of a number -> the scalar that holds it by now
    slot_names: list[str]

    def level(self, text: str) -> int:
        """Return the sweep after which an expression is known; 0 where it needs none."""
        return max((self.levels.get(name, 0) for name in names(text)), default=0)

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
        return bool(self.value(test))

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

            def visit_UnaryOp(self, operation: ast.UnaryOp) -> ast.AST:
                if isinstance(operation.op, ast.Invert):  # on numbers Python turns the bits round
                    operation.op = ast.Not()
                return self.generic_visit(operation)

            def visit_Attribute(self, attribute: ast.Attribute) -> ast.AST:
                if isinstance(attribute.value, ast.Name):
                    module = equation.names.get(attribute.value.id)
                    value = getattr(module, attribute.attr, None)
                    if isinstance(value, Real):
                        return ast.copy_location(ast.Constant(plain(value)), attribute)
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
        exponent = self.value(node.right)
        if exponent in (0, 1):
            one = ast.Call(ast.Name("number", ast.Load()), [ast.Constant(1.0)], [])
            return base if exponent == 1 else one
        if exponent in (2, 3, 4):
            return ast.Call(ast.Name(f"power{int(exponent)}", ast.Load()), [base], [])
        if exponent == 0.5:
            return ast.Call(ast.Name("sqrt", ast.Load()), [base], [])
        return ast.Call(ast.Name("power", ast.Load()), [base, self.element(node.right)], [])

    def value(self, node: ast.expr) -> Any:
        """Return the value of a number that no step changes; None of any other expression."""
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if not self.is_scalar(node) or not used <= self.static.keys():
            return None
        return eval(
            compile(ast.Expression(self.canonical(node)), "<equation>", "eval"), {}, self.static
        )


def plain(value: Real) -> int | float:
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
