"""The expressions of a generated CPU kernel, as LLVM instructions; see `ravine.engine.cpu_compiler`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from ravine.engine.lanes import Lane, chosen
from ravine.engine.lean_words import WORDS
from ravine.engine.words import KINDS

_FLOATS = ("float32", "float64")
_COMPARISONS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_ON_FLOATS = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_ON_INTEGERS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.RShift: "ashr"}
_ON_CONDITIONS = {ast.BitAnd: "and_", ast.BitOr: "or_"}


@dataclass(frozen=True)
class Value:
    """A number: what it is (a key of `KINDS`), and the instruction that makes it."""

    kind: str
    code: Any


@dataclass(frozen=True)
class Array:
    """Numbers of one kind behind an address."""

    kind: str
    first: Any


@dataclass
class Frame:
    """The names of a function that is being put in place.

    Attributes:
        straight: there is no loop and no branch, so that a name is its last value.
        flags: what LLVM may do to arithmetic.
        names: values that are known by name.
        places: kind and memory of a name that changes.
        result: what the function returns.
    """

    straight: bool
    flags: tuple[str, ...]
    names: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[str, Any]] = field(default_factory=dict)
    result: Any = None


class Expressions(ast.NodeVisitor):
    """Puts the expressions of a function in place.

    Attributes:
        builder: where instructions go.
        number: the kind of the arithmetic.
        functions: those of the source.
        formulas: name -> what puts a function of the engine in place.
        frame: of the function that is being put in place.
    """

    builder: Any
    number: str
    functions: dict[str, ast.FunctionDef]
    formulas: dict[str, Callable[..., Lane]]
    frame: Frame

    def generic_visit(self, node: ast.AST) -> Any:
        raise TypeError(f"{ast.unparse(node)!r} is not in the language of generated kernels")

    def enter(self, node: ast.FunctionDef, arguments: list[Any]) -> Any:
        """Put a function in place and return what it returns."""
        raise NotImplementedError

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self.frame.places:
            kind, place = self.frame.places[node.id]
            return Value(kind, self.builder.load(place))
        return self.frame.names[node.id]

    def visit_Constant(self, node: ast.Constant) -> Value:
        kind = "float64" if isinstance(node.value, float) else "int64"
        return Value(kind, KINDS[kind](node.value))

    def visit_Subscript(self, node: ast.Subscript) -> Value:
        array = self.visit(node.value)
        return Value(array.kind, self.builder.load(self.place(array, node.slice)))

    def place(self, array: Array, index: ast.expr) -> Any:
        return self.builder.gep(array.first, [self.visit(index).code])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.as_number(self.visit(node.operand))
        if isinstance(node.op, ast.UAdd):
            return value
        if isinstance(node.op, ast.USub):
            return Value(value.kind, self.builder.fneg(value.code))
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> Value:
        left, right = self.visit(node.left), self.visit(node.right)
        if type(node.op) in _ON_CONDITIONS:
            operate = getattr(self.builder, _ON_CONDITIONS[type(node.op)])
            return Value("bool", operate(self.truth(left), self.truth(right)))
        left, right = map(self.as_number, self.alike(left, right))
        if left.kind in _FLOATS:
            operate = getattr(self.builder, _ON_FLOATS[type(node.op)])
            return Value(left.kind, operate(left.code, right.code, flags=self.frame.flags))
        if isinstance(node.op, ast.FloorDiv):  # by a power of two: exact for any sign
            shift = right.code.constant.bit_length() - 1
            assert right.code.constant == 1 << shift
            return Value(left.kind, self.builder.ashr(left.code, right.code.type(shift)))
        operate = getattr(self.builder, _ON_INTEGERS[type(node.op)])
        return Value(left.kind, operate(left.code, right.code))

    def visit_Compare(self, node: ast.Compare) -> Value:
        alike = self.alike(self.visit(node.left), self.visit(node.comparators[0]))
        left, right = map(self.as_number, alike)
        sign = _COMPARISONS[type(node.ops[0])]
        if left.kind not in _FLOATS:
            return Value("bool", self.builder.icmp_signed(sign, left.code, right.code))
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return Value("bool", compare(sign, left.code, right.code))

    def visit_Call(self, node: ast.Call) -> Any:
        name = ast.unparse(node.func)
        if name == "address_to_array":
            return self.array(node)
        if name == "stack_bytes":
            return self.stack(ast.literal_eval(node.args[0]))
        if name == "number" or name in KINDS:
            return self.conversion(node.args[0], self.number if name == "number" else name)
        arguments = [self.visit(argument) for argument in node.args]
        if name in self.functions:
            return self.enter(self.functions[name], arguments)
        return getattr(self, f"call_{name}", self.function(name))(*arguments)

    def function(self, name: str) -> Callable[..., Value]:
        """Return what puts one of the engine's functions in place."""

        def put(*arguments: Value) -> Value:
            if name in WORDS:
                word = WORDS[name]
                given = [
                    self.cast(a, kind).code
                    for a, kind in zip(arguments, word.parameters, strict=True)
                ]
                return Value(word.result, word.build(self.builder, *given))
            formula = self.formulas[name]
            lanes = [Lane(self.builder, self.cast(a, self.number).code) for a in arguments]
            return Value(self.number, formula(*lanes).value)

        return put

    def call_where(self, condition: Value, a: Value, b: Value) -> Value:
        a, b = self.alike(a, b)
        return Value(a.kind, chosen(self.builder, self.truth(condition), a.code, b.code))

    def call_negation(self, condition: Value) -> Value:
        return Value("bool", self.builder.not_(self.truth(condition)))

    def call_min(self, a: Value, b: Value) -> Value:
        smaller = self.builder.icmp_signed("<", a.code, b.code)
        return Value("int64", self.builder.select(smaller, a.code, b.code))

    def array(self, node: ast.Call) -> Array:
        kind = ast.unparse(node.args[2])
        kind = self.number if kind == "number" else kind
        address = self.visit(node.args[0])
        return Array(kind, self.builder.inttoptr(address.code, KINDS[kind].as_pointer()))

    def stack(self, size: int) -> Value:
        with self.builder.goto_entry_block():
            block = self.builder.alloca(ir.ArrayType(KINDS["uint8"], size))
            block.align = 64
        return Value("int64", self.builder.ptrtoint(block, KINDS["int64"]))

    # -- kinds of numbers -----------------------------------------------------------------------

    def conversion(self, argument: ast.expr, kind: str) -> Value:
        if isinstance(argument, ast.Constant):
            return Value(kind, KINDS[kind](argument.value))
        value = self.visit(argument)
        if value.kind.startswith("int") and kind in _FLOATS:
            return Value(kind, self.builder.sitofp(value.code, KINDS[kind]))
        return self.cast(value, kind)

    def cast(self, value: Value, kind: str) -> Value:
        """Return a number as one of another kind; integers are cut to the width."""
        old, new = KINDS[value.kind], KINDS[kind]
        if old == new:
            return Value(kind, value.code)
        if value.kind == "bool" and kind in _FLOATS:
            return Value(kind, self.builder.uitofp(value.code, new))
        if value.kind in _FLOATS and kind in _FLOATS:
            change = self.builder.fptrunc if kind == "float32" else self.builder.fpext
            return Value(kind, change(value.code, new))
        if value.kind in _FLOATS or kind in _FLOATS:
            raise TypeError(f"{value.kind} where {kind} should be")
        if old.width > new.width:
            return Value(kind, self.builder.trunc(value.code, new))
        unsigned = value.kind.startswith("u") or value.kind == "bool"
        change = self.builder.zext if unsigned else self.builder.sext
        return Value(kind, change(value.code, new))

    def as_number(self, value: Any) -> Any:
        """Return a condition as a number, anything else as it is."""
        return self.cast(value, self.number) if value.kind == "bool" else value

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return two numbers as numbers of one kind."""
        if a.kind == b.kind:
            return a, b
        if a.kind == "bool":
            return self.cast(a, b.kind), b
        if b.kind == "bool":
            return a, self.cast(b, a.kind)
        if isinstance(b.code, ir.Constant):
            return a, Value(a.kind, KINDS[a.kind](b.code.constant))
        raise TypeError(f"{a.kind} beside {b.kind}")

    def truth(self, value: Value) -> Any:
        if value.kind == "bool":
            return value.code
        return self.builder.fcmp_unordered("!=", value.code, KINDS[value.kind](0.0))
