"""What compiled CPU code says beside arithmetic, as LLVM instructions: half precision, atomics.

A word takes numbers of fixed kinds and gives one, or several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

KINDS: dict[str, Any] = {
    "bool": ir.IntType(1),
    "uint8": ir.IntType(8),
    "uint16": ir.IntType(16),
    "int32": ir.IntType(32),
    "int64": ir.IntType(64),
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
}
"""The kinds of numbers, as they lie in memory. NumPy's names."""

HALVES = ("bfloat16", "float16")
"""What lies in memory as uint16 and is computed as float32."""

Build = Callable[..., Any]

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALF, _F32 = ir.HalfType(), ir.FloatType()


@dataclass(frozen=True)
class Word:
    """The kinds of a word's arguments and of its result or results, and what emits it."""

    result: str | tuple[str, ...]
    parameters: tuple[str, ...]
    build: Build  # of the builder and a value for each argument


WORDS: dict[str, Word] = {}


def word(result: str | tuple[str, ...], *parameters: str) -> Callable[[Build], Build]:
    """Make a word of a function that builds its code from the values of its arguments."""

    def decorate(build: Build) -> Build:
        WORDS[build.__name__] = Word(result, parameters, build)
        return build

    return decorate


@word("int64", "int64", "int64")
def atomic_add(b: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address as one indivisible step; return the old value."""
    return b.atomic_rmw("add", b.inttoptr(address, _I64.as_pointer()), amount, "seq_cst")


@word("float32", "uint16")
def bfloat16_to_float32(b: Any, held: Any) -> Any:
    """Return the float32 of a bfloat16 (exact)."""
    return b.bitcast(b.shl(b.zext(held, _I32), _I32(16)), _F32)


@word("uint16", "float32")
def float32_to_bfloat16(b: Any, value: Any) -> Any:
    """Return the bfloat16 nearest to a float32 (ties to even); NaN stays a quiet NaN."""
    # In integers, because the processor's own conversion (AVX512_BF16) turns subnormals into zero.
    bits = b.bitcast(value, _I32)
    high = b.lshr(bits, _I32(16))
    odd = b.and_(high, _I32(1))
    rounded = b.lshr(b.add(bits, b.add(odd, _I32(0x7FFF))), _I32(16))
    is_nan = b.fcmp_unordered("uno", value, value)
    return b.trunc(b.select(is_nan, b.or_(high, _I32(0x40)), rounded), _I16)


@word("float32", "uint16")
def float16_to_float32(b: Any, held: Any) -> Any:
    """Return the float32 of a float16 (exact)."""
    return b.fpext(b.bitcast(held, _HALF), _F32)


@word("uint16", "float32")
def float32_to_float16(b: Any, value: Any) -> Any:
    """Return the float16 nearest to a float32 (ties to even); NaN stays NaN."""
    return b.bitcast(b.fptrunc(value, _HALF), _I16)
