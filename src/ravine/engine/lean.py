"""Lean formats: numbers held in 16 or 8 bits, rounded at random so that nothing is lost on average.

A number x between two neighbours a < b of a format becomes b with probability (x - a) / (b - a): its
expected value is x, a change far below the spacing is kept on average, and what the format can hold
is never changed. The random bits are a hash of key and element, computed wherever they are needed and
stored nowhere: on any number of threads, in any chunks and on any executor they are the same.

========================  =======================================================================
`STOCHASTIC_BFLOAT16`     bfloat16; NaN and infinities stay
`SIGNED`                  8 bits and a share of a scale: a sign, 16 octaves of 8 steps
`NONNEGATIVE`             8 bits and a share of a scale: 32 octaves of 8 steps
========================  =======================================================================

**The 8-bit map.** `BLOCK` consecutive elements (in memory) share a scale s, a power of two held as
float32. Code c of a magnitude stands for

    s (T - 2)   with   T = 2^(1 + c // 8) (1 + (c mod 8) / 8)

and s is 2^-octaves times the smallest power of two 2^E with the block's largest magnitude <= 1.75 2^E,
that largest rounded up to four binary digits; an older scale up to four times that is kept. The map is
logarithmic over large magnitudes and linear near 0, which is code 0. Neighbours around a magnitude x
are at most x / 8 + s / 4 apart: the number taken at random is nearer than that, the nearest is half as
far off. s is at most 5 2^-octaves (8e-5, 1.2e-9) of the block's largest. It costs one fused multiply-add
and one shift each way: the bits of the float x / s + 2, rounded to four digits, are the code. As
scales are powers of two, a number that does not change is not rounded again when the block's largest
changes a little.

A nonnegative number that is not 0 never becomes 0: it stands under a root in a denominator, where 0
for something small would make a step of m / eps. The smallest code of a root mean square is
sqrt(s / 4), 2e-5 of the block's largest at most, and the smallest of the first moment s / 4 is 2e-5 of
its largest: no ratio of the two is far larger than that of the block's largest.

A NaN or an infinity (or a negative number where none may be) turns its whole block into NaN, so that it
is seen.

Differs from bitsandbytes (Dettmers et al. 2022, a table of 256 values in decades, float32 scales, nearest
code): there a root mean square that gains a thousandth a step never leaves its code, and every change
of a block's largest number rounds all others again; the table's steps are finer near the largest number
(1/70) and coarser a hundredth below it (1/3).

Source of the idea of rounding at random: Gupta, Agrawal, Gopalakrishnan & Narayanan 2015. The hash
walks by the golden ratio (Weyl), which a first key begins, and mixes as Wellons's "Prospecting for hash
functions" does, once and with a second key: no correlation above 0.003 between elements up to 300 apart
in 60 keys. `ravine.engine.lean_words` and `ravine.engine.gpu_lean` hold the same for compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 256
"""Consecutive elements that share a scale."""

DIGITS = 3
"""Binary digits of a code after the point: eight steps an octave."""

SHIFT = 23 - DIGITS
"""Bits of a float32 that a code has not."""

TWO = 0x40000000
"""The bits of 2.0, to which code 0 is added: their highest twelve end in eight zeros."""

WEYL, MULTIPLIER = 0x9E3779B1, 0x735A2D97
NEXT_WORD = 0x55555555
"""How many elements further on the bits of the next two variables are."""

LOWEST_SCALE = 4
"""The smallest exponent field of a scale: its codes and its reciprocal are normal numbers."""

SPARE = 2
"""Octaves above the block's largest number at which an old scale still serves."""

_INFINITY = 0x7F800000
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Lean:
    """How a variable lies in memory where that is not simply a dtype.

    Attributes:
        name: for people.
        dtype: of the tensor.
        octaves: powers of two that a magnitude's code spans; 0 where there are no codes.
        signed: whether a code has a sign.
    """

    name: str
    dtype: torch.dtype
    octaves: int = 0
    signed: bool = True

    @property
    def itemsize(self) -> int:
        """Bytes of an element, scales not counted."""
        return self.dtype.itemsize

    @property
    def random_bits(self) -> int:
        """The bits of a float32 that the format has not, which are drawn."""
        return SHIFT if self.octaves else 16


STOCHASTIC_BFLOAT16 = Lean("bfloat16", torch.bfloat16)
SIGNED = Lean("int8", torch.uint8, octaves=16)
NONNEGATIVE = Lean("int8", torch.uint8, octaves=32, signed=False)

Stored = torch.dtype | Lean
"""How a variable lies in memory."""


def scales_of(elements: int) -> int:
    """Return how many scales a tensor of so many elements has."""
    return -(-elements // BLOCK)


KEY = "key of the random bits"
"""The column of a tensor's key; like those of scales, named as no variable can be."""


def scales_column(name: str) -> str:
    """Return the column of the scales of a variable."""
    return f"scales of {name}"


def layout(variables: tuple[str, ...], types: Mapping[str, Stored]) -> tuple[str, ...]:
    """Return the columns of a kernel's table of addresses.

    After the variables come the scales of those that are codes (`scales_column`), and then, where
    anything is rounded at random, `KEY`: a number in the place of an address.
    """
    lean = [(name, form) for name in variables if isinstance(form := types[name], Lean)]
    scales = [scales_column(name) for name, form in lean if form.octaves]
    return (*variables, *scales, *([KEY] if lean else []))


# --- random bits ---------------------------------------------------------------------------------


def _word(value: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(value, dtype=np.uint64)  # an array: NumPy takes longer over its own scalars


_GOLDEN = _word(0x9E3779B97F4A7C15)
_KEY = _word(0x7FFFFFFFFFFFFFF0)  # a multiple of 16, as the addresses beside it should be
_SHIFTS = _word(30), _word(27), _word(31)
_FACTORS = _word(0xBF58476D1CE4E5B9), _word(0x94D049BB133111EB)


def step_keys(streams: Any, steps: Any) -> list[int]:
    """Return the key of each weight for a step: splitmix64 of its stream and its step count.

    In place it takes half of the time that new arrays do, which is 7 us for 6 weights.

    Args:
        streams: array of uint64, a random number for each weight.
        steps: array of the steps that each weight has taken, this one counted.
    """
    x = steps.astype(np.uint64)
    shifted = np.multiply(x, _GOLDEN)
    np.add(streams, shifted, x)
    for shift, factor in zip(_SHIFTS, _FACTORS):  # noqa: B905 (the last shift has no factor)
        np.right_shift(x, shift, shifted)
        np.bitwise_xor(x, shifted, x)
        np.multiply(x, factor, x)
    np.right_shift(x, _SHIFTS[2], shifted)
    np.bitwise_xor(x, shifted, x)
    np.bitwise_and(x, _KEY, x)
    keys: list[int] = x.astype(np.int64).tolist()
    return keys


def random_bits(
    elements: int, key: int, place: int, count: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return ``count`` random bits for each element of a tensor, in the order of memory, as int64.

    Args:
        elements: how many. After 2^32 of them the bits begin anew.
        key: see `step_keys`.
        place: which of the variables that are rounded this is: 0, 1, ... Two share a word of 32 bits,
            the even one from below, the odd one from above.
        count: bits, at most 24.
        device: where the result is.
    """
    index = torch.arange(elements, device=device) + place // 2 * NEXT_WORD
    x = (index * WEYL + (key >> 4)) & _MASK
    x = (((x ^ (x >> 16)) + (key >> 36)) * MULTIPLIER) & _MASK
    x = x ^ (x >> 15)
    return (x >> (32 - count)) if place % 2 else (x & ((1 << count) - 1))


# --- rounding ------------------------------------------------------------------------------------


def round_to_bfloat16(values: Tensor, bits: Tensor) -> Tensor:
    """Return float32 values as bfloat16, up or down by 16 random bits each."""
    raw = values.view(torch.int32).to(torch.int64)
    magnitude = raw & 0x7FFFFFFF
    rounded = torch.where(magnitude < _INFINITY, magnitude + bits, magnitude)
    rounded = torch.where(magnitude > _INFINITY, magnitude | 0x400000, rounded) & ~0xFFFF
    return _float((raw & 0x80000000) | rounded).to(torch.bfloat16)


def encode(
    values: Tensor, form: Lean, bits: Tensor | None = None, old: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the codes (uint8) and scales (float32) of values in the order of memory.

    Args:
        values: float32, one-dimensional.
        form: `SIGNED` or `NONNEGATIVE`.
        bits: `SHIFT` random bits for each element; the nearest code is taken where there are none.
        old: scales to keep where they serve.
    """
    raw = values.view(torch.int32).to(torch.int64)
    magnitude = raw & 0x7FFFFFFF
    bad = magnitude >= _INFINITY
    if not form.signed:
        bad |= values < 0
    blocks = torch.nn.functional.pad(
        torch.where(bad, _INFINITY, magnitude), (0, -len(values) % BLOCK)
    )
    top = blocks.view(-1, BLOCK).amax(1) if len(values) else blocks
    field = ((top + (2 << SHIFT) - 1) >> 23) - form.octaves
    field = field.clamp(min=LOWEST_SCALE)
    if old is not None:
        spare = (old.view(torch.int32).to(torch.int64) >> 23) - field
        field = torch.where((spare >= 0) & (spare <= SPARE), field + spare, field)
    scales = torch.where(top >= _INFINITY, torch.nan, _float(field << 23))
    inverse = _float((254 - field) << 23).repeat_interleave(BLOCK)[: len(values)]
    raised = (_float(magnitude) * inverse + 2.0).view(torch.int32).to(torch.int64) - TWO
    code = (raised + (1 << (SHIFT - 1) if bits is None else bits)) >> SHIFT
    least = (magnitude > 0).to(torch.int64)
    code = code | ((raw >> 24) & 0x80) if form.signed else torch.maximum(code, least)
    return code.to(torch.uint8), scales


def decode(codes: Tensor, scales: Tensor, form: Lean) -> Tensor:
    """Return the float32 values of codes in the order of memory."""
    scale = scales.repeat_interleave(BLOCK)[: len(codes)]
    raw = codes.to(torch.int64)
    code = (raw & 0x7F) if form.signed else raw
    value = _float((code << SHIFT) + TWO) * scale - 2.0 * scale
    return torch.where(raw >= 0x80, -value, value) if form.signed else value


def _float(bits: Tensor) -> Tensor:
    """Return the float32 that have the low 32 bits of int64 values."""
    return bits.to(torch.int32).view(torch.float32)
