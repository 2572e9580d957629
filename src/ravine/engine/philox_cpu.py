"""Philox4x32-10 inside compiled code, as 32-bit LLVM instructions that the loop around vectorises.

See `ravine.engine.philox` for the function itself.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ravine.engine.philox import MULTIPLIERS, ROUNDS, WEYL
from ravine.engine.words import word

__all__ = ["at_least_unsigned", "philox4x32"]

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _product(builder: Any, word: Any, factor: int) -> tuple[Any, Any]:
    """Return the low and the high half of word * factor."""
    product = builder.mul(builder.zext(word, _I64), _I64(factor))
    return builder.trunc(product, _I32), builder.trunc(builder.lshr(product, _I64(32)), _I32)


@word(("int32",) * 4, *("int32",) * 6)
def philox4x32(b: Any, c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, ...]:
    """Return the four words (int32, the same bits) of a counter of four words and a key of two."""
    for turn in range(ROUNDS):
        if turn:
            k0, k1 = b.add(k0, _I32(WEYL[0])), b.add(k1, _I32(WEYL[1]))
        low0, high0 = _product(b, c0, MULTIPLIERS[0])
        low1, high1 = _product(b, c2, MULTIPLIERS[1])
        c0 = b.xor(b.xor(high1, c1), k0)
        c2 = b.xor(b.xor(high0, c3), k1)
        c1, c3 = low1, low0
    return c0, c1, c2, c3


@word("bool", "int32", "int32")
def at_least_unsigned(b: Any, one: Any, other: Any) -> Any:
    """Whether one number is at least another, both taken as numbers in [0, 2^32)."""
    return b.icmp_unsigned(">=", one, other)
