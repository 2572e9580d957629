"""The lean formats inside compiled CPU code, as 32-bit LLVM instructions that a loop vectorises.

`ravine.engine.lean` says what they are and computes the same with tensors; here are::

    p = first_place(key)    next_place(p)         # int32: where an element's bits come from
    word = random_word(p, key)                    # int32
    r = low16(word)    high20(word)               # int32: 16 or 20 random bits from either end
    u = float32_to_bfloat16_at_random(x, r)       # the uint16 that holds it
    top = larger(top, x)                          # int32: bits of the largest magnitude so far
    top = larger_nonnegative(top, x)              # ... or more than infinity's, where one is negative
    s = signed_scale(top, s)                      # float32; the old one where it serves
    x = signed_number(code, s)                    # float32 of a uint8 code; the like for nonnegative_
    code = signed_code(x, r, s)                   # uint8
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ravine.engine.lean import (
    LOWEST_SCALE,
    MULTIPLIER,
    NONNEGATIVE,
    SHIFT,
    SIGNED,
    SPARE,
    TWO,
    WEYL,
    Lean,
)
from ravine.engine.words import WORDS, Build, word

__all__ = ["WORDS"]  # with those of this file

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_F32 = ir.FloatType()
_MAGNITUDE, _SIGN, _INFINITY = 0x7FFFFFFF, 0x80000000, 0x7F800000


# --- random bits ---------------------------------------------------------------------------------


@word("int32", "int64")
def first_place(b: Any, key: Any) -> Any:
    """Return the place at which a walk begins: a number's lowest 32 bits."""
    return b.trunc(key, _I32)


@word("int32", "int32")
def next_place(b: Any, place: Any) -> Any:
    """Return the place of the next element."""
    return b.add(place, _I32(WEYL))


@word("int32", "int32", "int32")
def random_word(b: Any, place: Any, key: Any) -> Any:
    """Return 32 random bits for a place and a key."""
    x = b.add(b.xor(place, b.lshr(place, _I32(16))), key)
    x = b.mul(x, _I32(MULTIPLIER))
    return b.xor(x, b.lshr(x, _I32(15)))


@word("int32", "int32")
def low16(b: Any, word: Any) -> Any:
    """Return the lowest 16 bits of a word."""
    return b.and_(word, _I32(0xFFFF))


@word("int32", "int32")
def high16(b: Any, word: Any) -> Any:
    """Return the highest 16 bits of a word."""
    return b.lshr(word, _I32(16))


@word("int32", "int32")
def low20(b: Any, word: Any) -> Any:
    """Return the lowest 20 bits of a word."""
    return b.and_(word, _I32(0xFFFFF))


@word("int32", "int32")
def high20(b: Any, word: Any) -> Any:
    """Return the highest 20 bits of a word; `low20` shares only those that count least here."""
    return b.lshr(word, _I32(12))


# --- bfloat16 ------------------------------------------------------------------------------------


@word("uint16", "float32", "int32")
def float32_to_bfloat16_at_random(b: Any, value: Any, random: Any) -> Any:
    """Return a neighbour of a float32 in bfloat16, the further one the less likely."""
    bits = b.bitcast(value, _I32)  # an infinity has no bits that could carry
    is_nan = b.fcmp_unordered("uno", value, value)
    rounded = b.select(is_nan, b.or_(bits, _I32(0x400000)), b.add(bits, random))
    return b.trunc(b.lshr(rounded, _I32(16)), _I16)


# --- codes ---------------------------------------------------------------------------------------


@word("int32", "int32", "float32")
def larger(b: Any, top: Any, value: Any) -> Any:
    """Return the larger of ``top`` and the bits of a magnitude."""
    magnitude = b.and_(b.bitcast(value, _I32), _I32(_MAGNITUDE))
    return b.select(b.icmp_signed(">", magnitude, top), magnitude, top)


@word("int32", "int32", "float32")
def larger_nonnegative(b: Any, top: Any, value: Any) -> Any:
    """Return the larger of ``top`` and the bits of a number, a sign being larger than all."""
    bits = b.bitcast(value, _I32)
    return b.select(b.icmp_unsigned(">", bits, top), bits, top)


@word("int32", "int32", "float32")
def larger_positive(b: Any, top: Any, value: Any) -> Any:
    """As `larger_nonnegative`, but for -0.0, which is 0."""
    bits = b.select(b.fcmp_ordered("==", value, _F32(0.0)), _I32(0), b.bitcast(value, _I32))
    return b.select(b.icmp_unsigned(">", bits, top), bits, top)


def _scale(form: Lean) -> Build:
    def scale(b: Any, top: Any, old: Any) -> Any:
        """Return the scale of a block whose largest magnitude has these bits."""
        field = b.lshr(b.add(top, _I32((2 << SHIFT) - 1)), _I32(23))
        field = b.sub(field, _I32(form.octaves))
        lowest = _I32(LOWEST_SCALE)
        field = b.select(b.icmp_signed("<", field, lowest), lowest, field)
        spare = b.sub(b.lshr(b.bitcast(old, _I32), _I32(23)), field)
        serves = b.icmp_unsigned("<=", spare, _I32(SPARE))
        field = b.select(serves, b.add(field, spare), field)
        bad = b.icmp_unsigned(">=", top, _I32(_INFINITY))
        return b.bitcast(b.select(bad, _I32(0x7FC00000), b.shl(field, _I32(23))), _F32)

    return scale


def _number(form: Lean) -> Build:
    def number(b: Any, held: Any, scale: Any) -> Any:
        """Return the number that a code stands for."""
        wide = b.sext(held, _I32) if form.signed else b.zext(held, _I32)
        bits = b.shl(wide, _I32(SHIFT))
        if form.signed:
            bits = b.and_(bits, _I32(0x7F << SHIFT))
        raised = b.bitcast(b.or_(bits, _I32(TWO)), _F32)
        # Exact but for the last rounding, so that it does not matter whether the two are fused.
        value = _fma(b, raised, scale, b.fmul(scale, _F32(-2.0)))
        if not form.signed:
            return value
        return b.bitcast(b.or_(b.bitcast(value, _I32), b.and_(wide, _I32(_SIGN))), _F32)

    return number


def _code(form: Lean) -> Build:
    def code(b: Any, value: Any, random: Any, scale: Any) -> Any:
        """Return a neighbour of a number among the codes, the further one the less likely."""
        bits = b.bitcast(value, _I32)
        magnitude = b.and_(bits, _I32(_MAGNITUDE)) if form.signed else bits
        inverse = b.bitcast(b.sub(_I32(254 << 23), b.bitcast(scale, _I32)), _F32)
        raised = _fma(b, b.bitcast(magnitude, _F32), inverse, _F32(2.0))
        code = b.lshr(b.add(b.bitcast(raised, _I32), random), _I32(SHIFT))
        if form.signed:
            sign = b.and_(b.lshr(bits, _I32(24)), _I32(0x80))
            return b.trunc(b.or_(code, sign), _I8)
        one = _I32((TWO >> SHIFT) + 1)  # the bits of TWO are cut away with the rest
        least = b.select(b.icmp_signed(">", code, one), code, one)
        return b.trunc(b.select(b.fcmp_ordered(">", value, _F32(0.0)), least, code), _I8)

    return code


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    kind = ir.FunctionType(_F32, [_F32] * 3)
    return b.call(b.module.declare_intrinsic("llvm.fmuladd", [_F32], kind), [x, y, z])


def _named(build: Build, name: str) -> Build:
    build.__name__ = build.__qualname__ = name
    return build


_TO_SCALE = word("float32", "int32", "float32")
_TO_NUMBER = word("float32", "uint8", "float32")
_TO_CODE = word("uint8", "float32", "int32", "float32")

signed_scale = _TO_SCALE(_named(_scale(SIGNED), "signed_scale"))
signed_number = _TO_NUMBER(_named(_number(SIGNED), "signed_number"))
signed_code = _TO_CODE(_named(_code(SIGNED), "signed_code"))
nonnegative_scale = _TO_SCALE(_named(_scale(NONNEGATIVE), "nonnegative_scale"))
nonnegative_number = _TO_NUMBER(_named(_number(NONNEGATIVE), "nonnegative_number"))
nonnegative_code = _TO_CODE(_named(_code(NONNEGATIVE), "nonnegative_code"))
