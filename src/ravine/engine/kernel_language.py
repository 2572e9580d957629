"""The language of CPU kernels that are written by hand; `ravine.engine.cpu_compiler` compiles it.

A `Part` is a Python function that is never run: its text is compiled, with the names of its module. It
may say what generated kernels say (`ravine.engine.cpu_source`), ``if`` and ``else``, ``and``, ``or`` and
``not``, ``continue``, an early ``return``, and::

    kind(x)                        # a number as one of another kind
    read(address, i, kind)         # number i of those at an int64 address
    write(address, i, x, kind)
    prefetch(address, True)        # have the line at an address in the cache soon, to write there if True;
                                   # any address may be asked for
    stack_bytes(64)                # the address of so many bytes on the stack, alive until the return
    turn(a, step, b, bstep, i, j, kind)  # i lines of j numbers at a, step bytes apart, become j lines of i
                                   # at b: a tile of at most `SIDE` x `SIDE` numbers
    c_call(function, i, j)         # the function in C at an address, of int64 (any number of them); the
                                   # result as an int64, of which int32(...) is an int
    atomic_add(address, amount)    # int64 at address += amount, as one indivisible step; the old value
    largest(x, y)                  # NaN where one of them is; LLVM makes vectors of it, which it does
                                   # not make of a comparison
    min(i, j)                      # of int64

and call other parts and the formulas of `ravine.engine.vector_formulas`. A kind is a number type by its
NumPy name; of the halves ``float16`` and ``bfloat16``, which lie in memory, `read` and `write` make float32.
Kinds, ``True`` and ``False`` are known when the kernel is compiled, as arguments of parts too: what hangs on
them alone is decided then, and what is not chosen is not compiled.

Memory behind an address is not owned or counted: the caller keeps the tensor alive.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

__all__ = [
    "SIDE", "Part", "c_call", "float64", "int32", "int64", "largest", "part", "part_any_zero", "part_apart",
    "part_as_written", "part_reordered", "prefetch", "read", "stack_bytes", "turn", "uint8", "write",
]  # fmt: skip

# A word of the language stands for itself; the checkers of Python want to find it somewhere.
c_call: Any = "c_call"
float64: Any = "float64"
int32: Any = "int32"
int64: Any = "int64"
largest: Any = "largest"
prefetch: Any = "prefetch"
read: Any = "read"
stack_bytes: Any = "stack_bytes"
turn: Any = "turn"
uint8: Any = "uint8"
write: Any = "write"

SIDE = {"float32": 16, "float64": 8}
"""Of the largest tile that can be turned: a line is 64 bytes."""


@dataclass(frozen=True)
class Part:
    """A function that kernels call.

    Attributes:
        function: what it is written as.
        flags: what LLVM may do to its arithmetic, not to that of the formulas it calls.
        apart: whether LLVM has to leave it a function.
    """

    function: FunctionType
    flags: tuple[str, ...]
    apart: bool = False

    @property
    def node(self) -> ast.FunctionDef:
        """Its syntax tree."""
        return _functions(self.function.__module__)[self.function.__name__]


@cache
def _functions(module: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _part(*flags: str, apart: bool = False) -> Callable[[Any], Any]:
    return lambda function: Part(function, flags, apart)


part = _part("contract")
part_apart = _part("contract", apart=True)
"""Where a loop has become slower among the instructions around a call."""
part_as_written = _part()
part_reordered = _part("contract", "reassoc")
"""For sums alone: LLVM makes vectors of them."""
part_any_zero = _part("nsz")
"""For a maximum alone, twice as fast where -0 may be 0; a sum with it is not made into vectors."""
