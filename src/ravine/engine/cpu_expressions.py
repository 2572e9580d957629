"""The expressions of a CPU kernel, as LLVM instructions; see `ravine.engine.cpu_compiler`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from ravine.engine.cpu_values import FLOATS, Array, Conversions, Value, decided
from ravine.engine.kernel_language import Part
from ravine.engine.lanes import Lane, chosen
from ravine.engine.lean_words import WORDS
from ravine.engine.scalar_formulas import FORMULAS
from ravine.engine.tiles import Lines, Turning
from ravine.engine.words import HALVES, KINDS

_COMPARISONS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_ON_FLOATS = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_ON_INTEGERS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.RShift: "ashr"}
_ON_CONDITIONS = {ast.BitAnd: "and_", ast.BitOr: "or_"}


@dataclass
class Frame:
    """The names of a function that is being compiled.

    Attributes:
        straight: there is no loop and no branch, so that a name is its last value.
        flags: what LLVM may do to arithmetic.
        known: the names of the text that the function stands in.
        names: values that are known by name.
        places: kind and memory of a name that changes.
        result: what the function returns, put in place; or else where its results go.
        kinds: of its results.
    """

    straight: bool
    flags: tuple[str, ...]
    known: Mapping[str, Any]
    names: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[str, Any]] = field(default_factory=dict)
    result: Any = None
    kinds: list[str] = field(default_factory=list)


class Expressions(Conversions, ast.NodeVisitor):
    """Puts the expressions of a function in place. A kind is its name, anything else a `Value`.

    Attributes:
        frame: of the function that is being compiled.
    """

    frame: Frame

    def generic_visit(self, node: ast.AST) -> Any:
        raise TypeError(f"{ast.unparse(node)!r} is not in the language of kernels")

    def enter(self, node: ast.FunctionDef, arguments: list[Any], part: Part | None = None) -> Any:
        """Put a function in place and return what it returns."""
        raise NotImplementedError

    def call(self, part: Part, arguments: list[Any]) -> Any:
        """Call a function and return what it returns."""
        raise NotImplementedError

    def visit_Name(self, node: ast.Name) -> Any:
        found = self.named(node)
        if isinstance(found, str) and found not in (*KINDS, *HALVES):
            raise TypeError(f"{found!r} is no number and no kind")
        return found

    def named(self, node: ast.Name) -> Any:
        """Return what a name stands for; itself, if it is a word of the language."""
        frame = self.frame
        if node.id in frame.places:
            kind, place = frame.places[node.id]
            return Value(kind, self.builder.load(place))
        found = frame.names.get(node.id, frame.known.get(node.id, node.id))
        if isinstance(found, (int, float)):
            return self.visit_Constant(ast.Constant(found))
        return found

    def visit_Constant(self, node: ast.Constant) -> Value:
        kind = {bool: "bool", int: "int64", float: "float64"}[type(node.value)]
        return Value(kind, KINDS[kind](node.value))

    def visit_Tuple(self, node: ast.Tuple) -> list[Any]:
        return [self.visit(part) for part in node.elts]

    def visit_Subscript(self, node: ast.Subscript) -> Value:
        array = self.visit(node.value)
        return Value(array.kind, self.builder.load(self.place(array, node.slice)))

    def place(self, array: Array, index: ast.expr) -> Any:
        return self.builder.gep(array.first, [self.visit(index).code])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return self.call_negation(value)
        value = self.as_number(value)
        if isinstance(node.op, ast.UAdd):
            return value
        if not isinstance(node.op, ast.USub):
            return self.generic_visit(node)
        if isinstance(value.code, ir.Constant):
            return Value(value.kind, KINDS[value.kind](-value.code.constant))
        negate = self.builder.fneg if value.kind in FLOATS else self.builder.neg
        return Value(value.kind, negate(value.code))

    def visit_BoolOp(self, node: ast.BoolOp) -> Value:
        """``a and b``, ``a or b``: b is not computed where a decides."""
        first, *rest = node.values
        left = self.visit(first)
        if not rest:
            return Value("bool", self.truth(left))
        others = ast.BoolOp(node.op, rest)
        decisive = isinstance(node.op, ast.Or)
        if decided(left) is not None:
            return left if decided(left) == decisive else self.visit_BoolOp(others)
        before, right, end = self.builder.block, self.new_block(), self.new_block()
        self.builder.cbranch(self.truth(left), *((end, right) if decisive else (right, end)))
        self.builder.position_at_end(right)
        value = self.visit_BoolOp(others)
        return self.either(
            end, Value("bool", KINDS["bool"](decisive)), before, value, self.builder.block
        )

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        test = self.visit(node.test)
        if decided(test) is not None:
            return self.visit(node.body if decided(test) else node.orelse)
        yes, no, end = self.new_block(), self.new_block(), self.new_block()
        self.builder.cbranch(self.truth(test), yes, no)
        self.builder.position_at_end(yes)
        a, a_block = self.visit(node.body), self.builder.block
        self.builder.branch(end)
        self.builder.position_at_end(no)
        b, b_block = self.visit(node.orelse), self.builder.block
        return self.either(end, a, a_block, b, b_block)

    def either(self, end: Any, a: Value, a_block: Any, b: Value, b_block: Any) -> Value:
        """Go to the block ``end``, and return the value of the block that control came from."""
        a, b = self.alike(a, b)
        self.builder.branch(end)
        self.builder.position_at_end(end)
        value = self.builder.phi(KINDS[a.kind])
        value.add_incoming(a.code, a_block)
        value.add_incoming(b.code, b_block)
        return Value(a.kind, value)

    def new_block(self) -> Any:
        return self.builder.append_basic_block()

    def visit_BinOp(self, node: ast.BinOp) -> Value:
        left, right = self.visit(node.left), self.visit(node.right)
        if type(node.op) in _ON_CONDITIONS:
            operate = getattr(self.builder, _ON_CONDITIONS[type(node.op)])
            return Value("bool", operate(self.truth(left), self.truth(right)))
        left, right = map(self.as_number, self.alike(left, right))
        if left.kind in FLOATS:
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
        if left.kind not in FLOATS:
            return Value("bool", self.builder.icmp_signed(sign, left.code, right.code))
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return Value("bool", compare(sign, left.code, right.code))

    def visit_Call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name):
            return self.generic_visit(node)
        called = self.named(node.func)
        arguments = [self.visit(argument) for argument in node.args]
        if called in KINDS:
            return self.conversion(arguments[0], called)
        if isinstance(called, Part):
            return self.call(called, arguments)
        if isinstance(called, ast.FunctionDef):
            return self.enter(called, arguments)
        if callable(called):
            return self.formula(called, arguments)
        if hasattr(self, f"call_{called}"):
            return getattr(self, f"call_{called}")(*arguments)
        if called in WORDS:
            return self.word(called, arguments)
        if called in FORMULAS:
            return self.formula(FORMULAS[called], arguments)
        raise TypeError(f"{called!r} is not in the language of kernels")

    def word(self, name: str, arguments: list[Value]) -> Any:
        word = WORDS[name]
        pairs = zip(arguments, word.parameters, strict=True)
        made = word.build(self.builder, *(self.cast(a, kind).code for a, kind in pairs))
        if isinstance(word.result, str):
            return Value(word.result, made)
        return list(map(Value, word.result, made))

    def formula(self, formula: Callable[..., Lane], arguments: list[Value]) -> Value:
        lanes = [Lane(self.builder, self.cast(a, self.number).code) for a in arguments]
        return Value(self.number, formula(*lanes).value)

    def call_where(self, condition: Value, a: Value, b: Value) -> Value:
        a, b = self.alike(a, b)
        return Value(a.kind, chosen(self.builder, self.truth(condition), a.code, b.code))

    def call_negation(self, condition: Value) -> Value:
        if decided(condition) is not None:
            return self.visit_Constant(ast.Constant(not decided(condition)))
        return Value("bool", self.builder.not_(self.truth(condition)))

    def call_min(self, a: Value, b: Value) -> Value:
        smaller = self.builder.icmp_signed("<", a.code, b.code)
        return Value("int64", self.builder.select(smaller, a.code, b.code))

    def call_largest(self, a: Value, b: Value) -> Value:
        kind = KINDS[a.kind]
        function = self.builder.module.declare_intrinsic(
            "llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind])
        )
        return Value(
            a.kind, self.builder.call(function, [a.code, b.code], fastmath=self.frame.flags)
        )

    def call_c_call(self, function: Value, *arguments: Value) -> Value:
        whole = KINDS["int64"]
        kind = ir.FunctionType(whole, [whole] * len(arguments))
        pointer = self.builder.inttoptr(function.code, kind.as_pointer())
        return Value("int64", self.builder.call(pointer, [a.code for a in arguments]))

    # -- memory ---------------------------------------------------------------------------------

    def call_address_to_array(self, address: Value, length: Value, kind: str) -> Array:
        return Array(kind, self.builder.inttoptr(address.code, KINDS[kind].as_pointer()))

    def call_stack_bytes(self, size: Value) -> Value:
        with self.builder.goto_entry_block():
            block = self.builder.alloca(ir.ArrayType(KINDS["uint8"], size.code.constant))
            block.align = 64
        return Value("int64", self.builder.ptrtoint(block, KINDS["int64"]))

    def call_prefetch(self, address: Value, writes: Value) -> None:
        bytes_, number = KINDS["uint8"].as_pointer(), KINDS["int32"]
        kind = ir.FunctionType(ir.VoidType(), [bytes_, number, number, number])
        function = self.builder.module.declare_intrinsic("llvm.prefetch", [bytes_], kind)
        place = self.builder.inttoptr(address.code, bytes_)
        nearest, data = number(3), number(1)
        self.builder.call(function, [place, number(int(bool(decided(writes)))), nearest, data])

    def call_turn(
        self, source: Value, source_step: Value, target: Value, target_step: Value, count: Value,
        length: Value, kind: str,
    ) -> None:  # fmt: skip
        given = Lines(source.code, source_step.code, count.code, length.code)
        made = Lines(target.code, target_step.code, length.code, count.code)
        Turning(self.builder, kind).turn(given, made)

    def call_read(self, address: Value, index: Value, kind: str) -> Any:
        held = "uint16" if kind in HALVES else kind
        pointer = self.builder.inttoptr(address.code, KINDS[held].as_pointer())
        value = Value(held, self.builder.load(self.builder.gep(pointer, [index.code])))
        return self.word(f"{kind}_to_float32", [value]) if kind in HALVES else value

    def call_write(self, address: Value, index: Value, value: Value, kind: str) -> None:
        if kind in HALVES:
            value, kind = self.word(f"float32_to_{kind}", [value]), "uint16"
        value = self.cast(value, kind)
        pointer = self.builder.inttoptr(address.code, KINDS[kind].as_pointer())
        self.builder.store(value.code, self.builder.gep(pointer, [index.code]))
