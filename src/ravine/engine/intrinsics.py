"""What Numba has no words for, as LLVM instructions: bits, half precision, addresses, atomics.

Each name below is callable inside ``@njit`` and ``@cfunc`` code only, is emitted inline, and
leaves the loop around it to be vectorised::

    x = address_to_array(address, length, np.float32)   # 1-D array over memory at an int64 address
    x = read(address, i, np.float32)                    # the number i of those at an address
    write(address, i, x, np.float32)
    old = atomic_add(address, amount)                   # int64 at address += amount; the old value
    bfloat16_to_float32(u)    float32_to_bfloat16(x)    # u is the uint16 (or int16) that holds it
    float16_to_float32(u)     float32_to_float16(x)     # both round to nearest even; NaN stays NaN
    float32_to_bits(x)        bits_to_float32(i)        # int32, the same 32 bits
    float64_to_bits(x)        bits_to_float64(i)        # int64, the same 64 bits
    larger(x, y)                                        # NaN where one of them is

Numba widens integer arithmetic to 64 bits and its ``.view`` of a scalar goes through memory; either
one stops LLVM from vectorising the loop around it. A float argument must have exactly the type that
the name says; integers are cut to the width.

Memory behind an address is not owned or counted: the caller keeps the tensor alive. Arrays of
bfloat16 or float16 are made with the marker ``np.uint16``. `read` and `write` convert: between
float32 and float16 for the marker ``np.float16``, and bfloat16 for ``np.uint16``. They compile
several times faster than arrays, and, with no negative indices, into less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numba.extending
from llvmlite import ir

from ravine.engine import words
from ravine.engine.words import WORDS

__all__ = [
    "address_to_array", "atomic_add", "bfloat16_to_float32", "bits_to_float32", "bits_to_float64",
    "float16_to_float32", "float32_to_bfloat16", "float32_to_bits", "float32_to_float16",
    "float64_to_bits", "larger", "read", "stack_bytes", "write",
]  # fmt: skip

# Typed aliases: Numba has no annotations, and mypy would call every decorated function untyped.
intrinsic: Callable[[Any], Any] = numba.extending.intrinsic
register_jitable: Callable[[Any], Any] = numba.extending.register_jitable
types: Any = numba.types
carray: Any = numba.carray  # type: ignore[attr-defined]

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()


def _unary(given: Any, argument: Any, result: Any, build: Callable[[Any, Any], Any]) -> Any:
    """Return signature and code of an intrinsic of one scalar, or None where ``given`` won't do."""
    if given != argument and not (
        isinstance(given, types.Integer) and isinstance(argument, types.Integer)
    ):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return build(builder, arguments[0])

    return result(argument), code


# --- addresses -----------------------------------------------------------------------------------


@intrinsic
def pointer_at(typing_context: Any, address: Any, marker: Any) -> Any:
    """Return the integer ``address`` as a pointer to values of the NumPy type ``marker``."""
    if not (isinstance(address, types.Integer) and isinstance(marker, types.NumberClass)):
        return None
    pointer = types.CPointer(marker.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, marker), code


@register_jitable
def address_to_array(address: Any, length: Any, marker: Any) -> Any:
    """Return a one-dimensional array of ``length`` values of type ``marker`` over ``address``."""
    return carray(pointer_at(address, marker), (length,))


@intrinsic
def atomic_add(typing_context: Any, address: Any, amount: Any) -> Any:
    """Add ``amount`` to the int64 at ``address`` as one indivisible step; return the old value."""
    if not (isinstance(address, types.Integer) and isinstance(amount, types.Integer)):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return words.atomic_add(builder, *arguments)

    return types.int64(types.int64, types.int64), code


# --- bits ----------------------------------------------------------------------------------------


@intrinsic
def float32_to_bits(typing_context: Any, x: Any) -> Any:
    """Return the bits of a float32 as an int32."""
    return _unary(x, types.float32, types.int32, lambda b, v: b.bitcast(v, _I32))


@intrinsic
def bits_to_float32(typing_context: Any, bits: Any) -> Any:
    """Return the float32 that has the bits of an int32."""
    return _unary(bits, types.int32, types.float32, lambda b, v: b.bitcast(v, _F32))


@intrinsic
def float64_to_bits(typing_context: Any, x: Any) -> Any:
    """Return the bits of a float64 as an int64."""
    return _unary(x, types.float64, types.int64, lambda b, v: b.bitcast(v, _I64))


@intrinsic
def bits_to_float64(typing_context: Any, bits: Any) -> Any:
    """Return the float64 that has the bits of an int64."""
    return _unary(bits, types.int64, types.float64, lambda b, v: b.bitcast(v, _F64))


@intrinsic
def larger(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two floats of one type, NaN if either is: LLVM's own maximum.

    Unlike a comparison, LLVM knows that its order does not matter, and makes vectors of a loop.
    """
    if a != b or not isinstance(a, types.Float):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function = builder.module.declare_intrinsic(
            "llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind])
        )
        return builder.call(function, arguments)

    return a(a, a), code


# --- half precision ------------------------------------------------------------------------------


def _of_word(name: str) -> Any:
    """Return the intrinsic of a word of one argument."""
    word = WORDS[name]
    (parameter,) = word.parameters

    def typing(typing_context: Any, given: Any) -> Any:
        return _unary(given, getattr(types, parameter), getattr(types, word.result), word.build)

    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = word.build.__doc__
    return intrinsic(typing)


bfloat16_to_float32 = _of_word("bfloat16_to_float32")
float32_to_bfloat16 = _of_word("float32_to_bfloat16")
float16_to_float32 = _of_word("float16_to_float32")
float32_to_float16 = _of_word("float32_to_float16")


# --- memory --------------------------------------------------------------------------------------


@intrinsic
def stack_bytes(typing_context: Any, size: Any) -> Any:
    """Return the address of ``size`` bytes on the stack (a literal), alive until the return."""
    if not isinstance(size, types.IntegerLiteral):
        raise numba.core.errors.RequireLiteralValue(size)
    count = size.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        with builder.goto_entry_block():
            block = builder.alloca(ir.ArrayType(ir.IntType(8), count))
            block.align = 64
        return builder.ptrtoint(block, _I64)

    return types.int64(size), code


@intrinsic
def read(typing_context: Any, address: Any, index: Any, marker: Any) -> Any:
    """Return number ``index`` of those at ``address``; the two halves come as float32."""
    if not isinstance(marker, types.NumberClass):
        return None
    held, result = _HELD.get(marker.dtype, marker.dtype), _computed(marker.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_place(context, builder, arguments, held))
        if marker.dtype == types.uint16:
            return words.bfloat16_to_float32(builder, value)
        if marker.dtype == types.float16:
            return words.float16_to_float32(builder, value)
        return value

    return result(types.int64, types.int64, marker), code


@intrinsic
def write(typing_context: Any, address: Any, index: Any, value: Any, marker: Any) -> Any:
    """Set number ``index`` of those at ``address``; the two halves are rounded to nearest even."""
    if not isinstance(marker, types.NumberClass):
        return None
    held, given = _HELD.get(marker.dtype, marker.dtype), _computed(marker.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[2]
        if marker.dtype == types.uint16:
            value = words.float32_to_bfloat16(builder, value)
        elif marker.dtype == types.float16:
            value = words.float32_to_float16(builder, value)
        builder.store(value, _place(context, builder, arguments, held))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, given, marker), code


_HELD = {types.float16: types.uint16}


def _computed(kind: Any) -> Any:
    return types.float32 if kind in (types.float16, types.uint16) else kind


def _place(context: Any, builder: Any, arguments: Any, held: Any) -> Any:
    pointer = builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(held)))
    return builder.gep(pointer, [arguments[1]])
