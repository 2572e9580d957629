"""Compiles the text of a generated CPU kernel (`ravine.engine.cpu_source`) to LLVM instructions.

The text is Python that a reader knows, and so little of it that one walk over its syntax tree is a
compiler: numbers, arrays behind addresses, loops that count, calls of the engine's own functions. Each
call is put in the place where it stands, so nothing is left for LLVM to inline.

Numba compiled the same text before. It took 0.7 s a kernel, 0.5 of it to find types that the text says
by itself, and 1.2 s more to be imported; this takes 0.07 s, most of it in LLVM.
"""

from __future__ import annotations

import ast
import importlib
from typing import Any

from llvmlite import ir

from ravine.engine.cpu_expressions import Array, Expressions, Frame, Value
from ravine.engine.interleaving import mark, with_marks
from ravine.engine.scalar_formulas import FORMULAS
from ravine.engine.words import KINDS


def compiled(source: str, entry: str) -> str:
    """Return LLVM's text of ``void entry(int64)``, a function of a generated source."""
    return _Compiler(ast.parse(source)).run(entry)


class _Compiler(Expressions, ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        self.functions = {
            node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)
        }
        named = {
            ast.unparse(node.targets[0]): ast.unparse(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
        }
        self.number = named["number"]
        self.formulas = dict(FORMULAS)
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                self.formulas |= {one.name: getattr(module, one.name) for one in node.names}
        self.frame = Frame(straight=False, flags=())
        self.ends: list[Any] = []  # of the loops around, the block behind

    def run(self, entry: str) -> str:
        module = ir.Module(entry)
        kind = ir.FunctionType(ir.VoidType(), [KINDS["int64"]])
        function = ir.Function(module, kind, entry)
        function.attributes.add("nounwind")
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        node = self.functions[entry]
        self.enter(node, [Value("int64", function.args[0])])
        self.builder.ret_void()
        for block in function.blocks:
            for instruction in block.instructions:
                _allow_contraction(instruction)
        return with_marks(str(module))

    # -- functions ------------------------------------------------------------------------------

    def enter(self, node: ast.FunctionDef, arguments: list[Any]) -> Any:
        """Put a function in place and return what it returns."""
        outer = self.frame
        straight = not any(isinstance(n, (ast.For, ast.While, ast.If)) for n in ast.walk(node))
        flags = ("contract", "reassoc") if node.decorator_list else ()
        names = dict(zip((a.arg for a in node.args.args), arguments, strict=True))
        self.frame = Frame(straight, flags, names)
        self.block(node.body)
        result, self.frame = self.frame.result, outer
        return result

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    # -- statements -----------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        assert node.value is not None
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        found = [self.as_number(self.visit(part)) for part in parts]
        self.frame.result = found if isinstance(node.value, ast.Tuple) else found[0]

    def visit_Assign(self, node: ast.Assign) -> None:
        (target,) = node.targets
        value = self.visit(node.value)
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
        if target.id not in frame.places:
            with self.builder.goto_entry_block():
                frame.places[target.id] = value.kind, self.builder.alloca(KINDS[value.kind])
        kind, place = frame.places[target.id]
        self.builder.store(self.cast(value, kind).code, place)

    def visit_If(self, node: ast.If) -> None:
        with self.builder.if_then(self.truth(self.visit(node.test))):
            self.block(node.body)

    def visit_While(self, node: ast.While) -> None:
        """``while True``, which a break ends."""
        body, end = map(self.builder.append_basic_block, ("again", "end"))
        self.builder.branch(body)
        self.repeated(node.body, body, end)
        self.builder.branch(body)
        self.builder.position_at_end(end)

    def visit_For(self, node: ast.For) -> None:
        """``for i in range(...)``, upwards."""
        assert isinstance(node.iter, ast.Call)
        assert isinstance(node.target, ast.Name)
        whole = KINDS["int64"]
        given = [self.visit(argument).code for argument in node.iter.args]
        start, stop = given[:2] if len(given) > 1 else (whole(0), given[0])
        step = given[2] if len(given) > 2 else whole(1)
        before = self.builder.block
        head, body, end = map(self.builder.append_basic_block, ("head", "body", "end"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        count = self.builder.phi(whole)
        count.add_incoming(start, before)
        self.builder.cbranch(self.builder.icmp_signed("<", count, stop), body, end)
        self.frame.names[node.target.id] = Value("int64", count)
        self.repeated(node.body, body, end)
        last = self.builder.block
        count.add_incoming(self.builder.add(count, step, flags=["nsw"]), last)
        back = self.builder.branch(head)
        if last is body:
            mark(back, body)
        self.builder.position_at_end(end)

    def repeated(self, statements: list[ast.stmt], block: Any, end: Any) -> None:
        """Put the body of a loop into a block, and what a break goes to behind it."""
        self.builder.position_at_end(block)
        self.ends.append(end)
        self.block(statements)
        self.ends.pop()

    def visit_Break(self, node: ast.Break) -> None:
        self.builder.branch(self.ends[-1])


def _allow_contraction(instruction: Any) -> None:
    """Let LLVM fuse a multiplication with an addition."""
    if instruction.opname in ("fadd", "fsub", "fmul", "fdiv", "fcmp"):
        if not instruction.flags:
            instruction.flags.append("contract")
    elif instruction.opname == "call" and instruction.type in (ir.FloatType(), ir.DoubleType()):
        instruction.fastmath.add("contract")
