"""Philox4x32-10 inside compiled code, as 32-bit LLVM instructions that the loop around vectorises.

Numba widens integers to 64 bits, which would halve the lanes; see `ravine.engine.philox` for the
function itself.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ravine.engine.intrinsics import intrinsic, types
from ravine.engine.philox import MULTIPLIERS, ROUNDS, WEYL

__all__ = ["at_least_unsigned", "philox4x32"]

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _product(builder: Any, word: Any, factor: int) -> tuple[Any, Any]:
    """Return the low and the high half of word * factor."""
    product = builder.mul(builder.zext(word, _I64), _I64(factor))
    return builder.trunc(product, _I32), builder.trunc(builder.lshr(product, _I64(32)), _I32)


@intrinsic
def philox4x32(typing_context: Any, c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return the four words (int32, the same bits) of a counter of four words and a key of two."""
    if not all(isinstance(word, types.Integer) for word in (c0, c1, c2, c3, k0, k1)):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c0, c1, c2, c3, k0, k1 = arguments
        for turn in range(ROUNDS):
            if turn:
                k0, k1 = builder.add(k0, _I32(WEYL[0])), builder.add(k1, _I32(WEYL[1]))
            low0, high0 = _product(builder, c0, MULTIPLIERS[0])
            low1, high1 = _product(builder, c2, MULTIPLIERS[1])
            c0 = builder.xor(builder.xor(high1, c1), k0)
            c2 = builder.xor(builder.xor(high0, c3), k1)
            c1, c3 = low1, low0
        return context.make_tuple(builder, signature.return_type, (c0, c1, c2, c3))

    return types.UniTuple(types.int32, 4)(*[types.int32] * 6), code


@intrinsic
def at_least_unsigned(typing_context: Any, a: Any, b: Any) -> Any:
    """Whether a >= b, both taken as numbers in [0, 2^32)."""
    if not (isinstance(a, types.Integer) and isinstance(b, types.Integer)):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.icmp_unsigned(">=", *arguments)

    return types.boolean(types.int32, types.int32), code
