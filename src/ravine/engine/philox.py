"""Philox4x32-10: random numbers computed from a counter, so that nothing has to be stored.

Whoever knows the key and the counter computes the same four numbers again: on another day, on
another device, in another order, on any number of threads.

Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
`ravine.engine.philox_cpu` holds the same function for compiled code.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

_MASK = 0xFFFFFFFF
_Word = TypeVar("_Word", int, Tensor)


def philox4x32(
    counter: tuple[_Word, _Word, _Word, _Word], key: tuple[_Word, _Word]
) -> tuple[_Word, _Word, _Word, _Word]:
    """Return four random numbers in [0, 2^32) for a counter of 128 bits and a key of 64.

    Equation, ten times, with (m0, m1) the multipliers and the key raised by (w0, w1) each time:

        (c0, c1, c2, c3) <- (high(m1 c2) ^ c1 ^ k0, low(m1 c2), high(m0 c0) ^ c3 ^ k1, low(m0 c0))

    Args:
        counter: words in [0, 2^32), least significant first; Python numbers or int64 tensors of
            shapes that broadcast.
        key: two words in [0, 2^32), likewise.

    Returns:
        Four words in the form in which they were given; on tensors of any device the same.

    Example:
        >>> [hex(word) for word in philox4x32((0, 0, 0, 0), (0, 0))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']

    Differs from torch, whose CUDA generator uses this function with a counter of its own, and whose
    CPU generator (mt19937) has to run through all numbers in order.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for turn in range(ROUNDS):
        if turn:
            k0, k1 = (k0 + WEYL[0]) & _MASK, (k1 + WEYL[1]) & _MASK
        # int64 wraps around where Python's numbers grow; the 64 bits that are looked at agree.
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((b >> 32) & _MASK) ^ c1 ^ k0,
            b & _MASK,
            ((a >> 32) & _MASK) ^ c3 ^ k1,
            a & _MASK,
        )
    return c0, c1, c2, c3


def words(number: _Word) -> tuple[_Word, _Word]:
    """Return the low and the high 32 bits of a number in [0, 2^63).

    >>> words(2**32 + 5)
    (5, 1)
    """
    return number & _MASK, (number >> 32) & _MASK


def stream_seed(seed: int, index: int) -> int:
    """Return the seed, in [0, 2^63), of the stream that has this index among those of ``seed``.

    Different indices give unrelated streams, which ``seed + index`` would only do as long as nobody
    numbers streams by adding too.

    >>> stream_seed(0, 0) != stream_seed(0, 1) != stream_seed(1, 0)
    True
    """
    low, high, _, _ = philox4x32((*words(index), 0x5EED, 0), words(seed))
    return low | (high & 0x7FFFFFFF) << 32
