"""Compiles the text of a CPU kernel to LLVM instructions.

The text is Python that a reader knows, and so little of it that one walk over its syntax tree is a
compiler: numbers, arrays behind addresses, loops that count, calls. Most is generated
(`ravine.engine.cpu_source`); the kernels over rows are written by hand, in parts
(`ravine.engine.kernel_language`).

A function of the text, or a part without loops and branches, is put in the place where it is called, so that
nothing is left for LLVM to inline. Other parts become functions of LLVM, one for each set of kinds, so that
their loops are compiled once.
"""

from __future__ import annotations

import ast
import importlib
from typing import Any

from llvmlite import ir

from ravine.engine.cpu_expressions import Expressions, Frame
from ravine.engine.cpu_values import Array, Value, decided
from ravine.engine.interleaving import mark, with_marks
from ravine.engine.kernel_language import Part
from ravine.engine.words import KINDS, WORDS


def compiled(source: str, entry: str) -> str:
    """Return LLVM's text of ``void entry(int64)``, a function of a source."""
    return _Compiler(ast.parse(source)).run(entry)


class _Compiler(Expressions, ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        text: dict[str, Any] = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                text[node.name] = node
            elif isinstance(node, ast.Assign):
                text[ast.unparse(node.targets[0])] = ast.unparse(node.value)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                names = [one.name for one in node.names if one.name not in WORDS]  # of themselves
                text |= {name: getattr(module, name) for name in names}
        self.text = text
        self.number = text["number"]
        self.loops: list[tuple[Any, Any]] = []  # around: the block of the next turn, and of the end
        self.made: dict[Any, tuple[Any, list[str]]] = {}

    def run(self, entry: str) -> str:
        module = ir.Module(entry)
        # The C library (pow, memset) is called by a table of addresses: for the other way the loader
        # makes no room, and ends the process.
        how = [ir.IntType(32)(7), ir.MetaDataString(module, "RtLibUseGOT"), ir.IntType(32)(1)]
        module.add_named_metadata("llvm.module.flags", how)
        function = self.new_function(module, entry, [KINDS["int64"]])
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        node = self.text[entry]
        names = {node.args.args[0].arg: Value("int64", function.args[0])}
        self.frame = Frame(False, _TOGETHER, self.text, names, result=[])
        self.finish(function, node)
        return with_marks(str(module))

    # -- functions ------------------------------------------------------------------------------

    def enter(self, node: ast.FunctionDef, arguments: list[Any], part: Part | None = None) -> Any:
        """Put a function in place and return what it returns."""
        outer = self.frame
        known = part.function.__globals__ if part else self.text
        flags = part.flags if part else _REORDERED if node.decorator_list else _TOGETHER
        self.frame = Frame(_straight(node), flags, known, _named(node, arguments))
        self.block(node.body)
        result, self.frame = self.frame.result, outer
        return result

    def call(self, part: Part, arguments: list[Any]) -> Any:
        """Call a part, which becomes a function of LLVM unless it is short, and return what it returns."""
        if _straight(part.node):
            return self.enter(part.node, arguments, part)
        given = [a for a in arguments if not _known(a)]
        function, kinds = self.function_of(part, arguments)
        with self.builder.goto_entry_block():
            results = [self.builder.alloca(KINDS["int64"]) for _ in kinds]
        self.builder.call(function, [*map(_code, given), *results])
        places = [self.place_of(kind, result) for kind, result in zip(kinds, results, strict=True)]
        found = [Value(k, self.builder.load(p)) for k, p in zip(kinds, places, strict=True)]
        return found[0] if len(found) == 1 else found

    def function_of(self, part: Part, arguments: list[Any]) -> tuple[Any, list[str]]:
        """Return the function of a part for arguments of these kinds, and the kinds of its results."""
        key = part, tuple(_known(a) or type(a).__name__ + a.kind for a in arguments)
        if key not in self.made:
            given = [_code(a).type for a in arguments if not _known(a)]
            places = [_ANY] * _results(part.node)
            name = f"{part.function.__name__}.{len(self.made)}"
            function = self.new_function(self.builder.module, name, [*given, *places])
            function.linkage = "internal"
            if part.apart:
                function.attributes.add("noinline")
            outer = self.builder, self.frame
            self.builder = ir.IRBuilder(function.append_basic_block("entry"))
            values = iter(function.args)
            inner = [a if _known(a) else type(a)(a.kind, next(values)) for a in arguments]
            names = _named(part.node, inner)
            self.frame = Frame(
                False, part.flags, part.function.__globals__, names, result=list(values)
            )
            self.finish(function, part.node)
            self.made[key] = function, self.frame.kinds
            self.builder, self.frame = outer
        return self.made[key]

    def place_of(self, kind: str, place: Any) -> Any:
        """Return the place of a result as one of a kind."""
        return self.builder.bitcast(place, KINDS[kind].as_pointer())

    def new_function(self, module: Any, name: str, kinds: list[Any]) -> Any:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        function.attributes.add("nounwind")
        return function

    def finish(self, function: Any, node: ast.FunctionDef) -> None:
        """Compile the body of a function of LLVM."""
        self.block(node.body)
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        if "contract" in self.frame.flags:
            for block in function.blocks:
                for instruction in block.instructions:
                    _allow_contraction(instruction)

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if not self.builder.block.is_terminated:
                self.visit(statement)

    # -- statements -----------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        found = [] if node.value is None else self.visit(node.value)
        values = [self.as_number(v) for v in (found if isinstance(found, list) else [found])]
        if self.frame.result is None:
            self.frame.result = values if isinstance(found, list) else values[0]
            return
        kinds = [value.kind for value in values]
        if self.frame.kinds not in ([], kinds):
            raise TypeError(f"{kinds} and {self.frame.kinds} are returned by one function")
        for value, place in zip(values, self.frame.result, strict=True):
            self.builder.store(value.code, self.place_of(value.kind, place))
        self.frame.kinds = kinds
        self.builder.ret_void()

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Tuple):
                for one, part in zip(target.elts, value, strict=True):
                    self.assign(one, part)
            else:
                self.assign(target, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        assert isinstance(node.target, ast.Name)
        old = ast.Name(node.target.id, ast.Load())
        self.assign(node.target, self.visit(ast.BinOp(old, node.op, node.value)))

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Subscript):
            array = self.visit(target.value)
            self.builder.store(self.cast(value, array.kind).code, self.place(array, target.slice))
            return
        assert isinstance(target, ast.Name)
        frame = self.frame
        if frame.straight or isinstance(value, Array):
            frame.names[target.id] = value
            return
        # Its earlier uses, in a loop around, would not see the new number.
        if target.id in frame.names:
            raise TypeError(f"{target.id!r} is an argument or counts a loop, and is assigned to")
        if target.id not in frame.places:
            with self.builder.goto_entry_block():
                frame.places[target.id] = value.kind, self.builder.alloca(KINDS[value.kind])
        kind, place = frame.places[target.id]
        self.builder.store(self.cast(value, kind).code, place)

    def visit_If(self, node: ast.If) -> None:
        test = self.visit(node.test)
        if decided(test) is not None:
            self.block(node.body if decided(test) else node.orelse)
        elif node.orelse:
            with self.builder.if_else(self.truth(test)) as (then, otherwise):
                with then:
                    self.block(node.body)
                with otherwise:
                    self.block(node.orelse)
        else:
            with self.builder.if_then(self.truth(test)):
                self.block(node.body)

    def visit_While(self, node: ast.While) -> None:
        """``while True``, which a break ends."""
        body, end = map(self.builder.append_basic_block, ("again", "end"))
        self.builder.branch(body)
        self.repeated(node.body, body, body, end)
        self.builder.position_at_end(end)

    def visit_For(self, node: ast.For) -> None:
        """``for i in range(...)``, upwards."""
        assert isinstance(node.iter, ast.Call)
        assert isinstance(node.target, ast.Name)
        if node.target.id in self.frame.places:
            raise TypeError(f"{node.target.id!r} counts a loop, and was assigned to")
        whole = KINDS["int64"]
        given = [self.visit(argument).code for argument in node.iter.args]
        start, stop = given[:2] if len(given) > 1 else (whole(0), given[0])
        step = given[2] if len(given) > 2 else whole(1)
        before = self.builder.block
        names = "head", "body", "next", "end"
        head, body, following, end = map(self.builder.append_basic_block, names)
        self.builder.branch(head)
        self.builder.position_at_end(head)
        count = self.builder.phi(whole)
        count.add_incoming(start, before)
        self.builder.cbranch(self.builder.icmp_signed("<", count, stop), body, end)
        self.frame.names[node.target.id] = Value("int64", count)
        self.repeated(node.body, body, following, end)
        self.builder.position_at_end(following)
        count.add_incoming(self.builder.add(count, step, flags=["nsw"]), following)
        back = self.builder.branch(head)
        if body.terminator.operands == [following]:  # one block
            mark(back, body)
        self.builder.position_at_end(end)

    def repeated(self, statements: list[ast.stmt], block: Any, following: Any, end: Any) -> None:
        """Put the body of a loop into a block, and go on to the next turn."""
        self.builder.position_at_end(block)
        self.loops.append((following, end))
        self.block(statements)
        self.loops.pop()
        if not self.builder.block.is_terminated:
            self.builder.branch(following)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.builder.branch(self.loops[-1][0])

    def visit_Break(self, node: ast.Break) -> None:
        self.builder.branch(self.loops[-1][1])


_ANY = KINDS["int64"].as_pointer()
"""The place of a result: its kind is known only when the function is compiled."""
_TOGETHER, _REORDERED = ("contract",), ("contract", "reassoc")


def _straight(node: ast.FunctionDef) -> bool:
    """Whether there is no loop and no branch in a function."""
    return not any(isinstance(n, (ast.For, ast.While, ast.If)) for n in ast.walk(node))


def _results(node: ast.FunctionDef) -> int:
    """Return how many numbers a function returns."""
    returned = [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
    return max((len(v.elts) if isinstance(v, ast.Tuple) else 1 for v in returned), default=0)


def _named(node: ast.FunctionDef, arguments: list[Any]) -> dict[str, Any]:
    return dict(zip((a.arg for a in node.args.args), arguments, strict=True))


def _known(argument: Any) -> str:
    """Return what an argument is, if that is known when the kernel is compiled."""
    if isinstance(argument, str):
        return argument
    found = None if isinstance(argument, Array) else decided(argument)
    return "" if found is None else str(found)


def _code(argument: Value | Array) -> Any:
    return argument.first if isinstance(argument, Array) else argument.code


def _allow_contraction(instruction: Any) -> None:
    """Let LLVM fuse a multiplication with an addition."""
    if instruction.opname in ("fadd", "fsub", "fmul", "fdiv", "fcmp"):
        if not instruction.flags:
            instruction.flags.append("contract")
    elif instruction.opname == "call" and instruction.type in (ir.FloatType(), ir.DoubleType()):
        instruction.fastmath.add("contract")
