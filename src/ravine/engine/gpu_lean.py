"""The lean formats inside Triton kernels, with the bits of `ravine.engine.lean_words`.

A block of a kernel has a row of scales, one for each block of `ravine.engine.lean.BLOCK` elements in it.
"""

# mypy: ignore-errors
# ruff: noqa: SIM108
from __future__ import annotations

import triton
import triton.language as tl

from ravine.engine import lean

__all__ = [
    "bfloat16_at_random", "high16", "high20", "load_scales", "low16", "low20", "nonnegative_code",
    "nonnegative_number", "nonnegative_scales", "random_word", "signed_code", "signed_number",
    "signed_scales", "store_scales",
]  # fmt: skip

LEAN_BLOCK = tl.constexpr(lean.BLOCK)
SHIFT = tl.constexpr(lean.SHIFT)
TWO = tl.constexpr(lean.TWO)
LEAST = tl.constexpr((lean.TWO >> lean.SHIFT) + 1)  # the code of what is not quite 0
TO_FOUR_DIGITS = tl.constexpr((2 << lean.SHIFT) - 1)  # 1.75 2^E stays, more becomes 2^(E + 1)
WEYL = tl.constexpr(lean.WEYL)
MULTIPLIER = tl.constexpr(lean.MULTIPLIER)
LOWEST_SCALE = tl.constexpr(lean.LOWEST_SCALE)
SPARE = tl.constexpr(lean.SPARE)
SIGNED_OCTAVES = tl.constexpr(lean.SIGNED.octaves)
NONNEGATIVE_OCTAVES = tl.constexpr(lean.NONNEGATIVE.octaves)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
INFINITY = tl.constexpr(0x7F800000)
NAN = tl.constexpr(0x7FC00000)


@triton.jit
def _bits(x):
    return x.to(tl.float32).to(tl.int32, bitcast=True)


@triton.jit
def _float(bits):
    return bits.to(tl.float32, bitcast=True)


# --- random bits ---------------------------------------------------------------------------------


@triton.jit
def random_word(key, first, lane):
    """Return 32 random bits for each element of a block whose first one has the place ``first``."""
    x = (first * WEYL + (key >> 4)).to(tl.uint32) + lane.to(tl.uint32) * WEYL
    x = ((x ^ (x >> 16)) + (key >> 36).to(tl.uint32)) * MULTIPLIER
    return x ^ (x >> 15)


@triton.jit
def low16(word):
    return (word & 0xFFFF).to(tl.int32)


@triton.jit
def high16(word):
    return (word >> 16).to(tl.int32)


@triton.jit
def low20(word):
    return (word & 0xFFFFF).to(tl.int32)


@triton.jit
def high20(word):
    return (word >> 12).to(tl.int32)


# --- bfloat16, held as int16 ---------------------------------------------------------------------


@triton.jit
def bfloat16_at_random(x, random):
    bits = _bits(x)  # an infinity has no bits that could carry
    rounded = tl.where(x != x, bits | 0x400000, bits + random)
    return (rounded >> 16).to(tl.int16)


# --- scales --------------------------------------------------------------------------------------


@triton.jit
def load_scales(at, left, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK // LEAN_BLOCK)
    if MASKED:
        scales = tl.load(at + place, mask=place * LEAN_BLOCK < left, other=1.0)
    else:
        scales = tl.load(at + place)
    return scales


@triton.jit
def store_scales(at, scales, left, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK // LEAN_BLOCK)
    if MASKED:
        tl.store(at + place, scales, mask=place * LEAN_BLOCK < left)
    else:
        tl.store(at + place, scales)


@triton.jit
def _each(scales):
    """Return the bits of every element's scale."""
    spread = tl.broadcast_to(scales[:, None], (scales.shape[0], LEAN_BLOCK))
    return tl.reshape(spread, (scales.shape[0] * LEAN_BLOCK,))


@triton.jit
def _scales(magnitude, old, inside, OCTAVES: tl.constexpr):
    """Return the scales for magnitudes (their bits, those that may not be held as infinity)."""
    if inside is not None:
        magnitude = tl.where(inside, magnitude, 0)
    top = tl.max(tl.reshape(magnitude, (old.shape[0], LEAN_BLOCK)), axis=1)
    field = ((top + TO_FOUR_DIGITS) >> 23) - OCTAVES
    field = tl.maximum(field, LOWEST_SCALE)
    spare = (_bits(old) >> 23) - field
    field = tl.where((spare >= 0) & (spare <= SPARE), field + spare, field)
    return _float(tl.where(top >= INFINITY, NAN, field << 23))


@triton.jit
def signed_scales(x, old, inside):
    return _scales(_bits(x) & MAGNITUDE, old, inside, SIGNED_OCTAVES)


@triton.jit
def nonnegative_scales(x, old, inside):
    magnitude = tl.where(x < 0, INFINITY, _bits(x) & MAGNITUDE)
    return _scales(magnitude, old, inside, NONNEGATIVE_OCTAVES)


# --- codes ---------------------------------------------------------------------------------------


@triton.jit
def _number(code, scales):
    scale = _each(scales)
    # Exact but for the last rounding, so that it does not matter whether the two are fused.
    return _float((code << SHIFT) + TWO) * scale - 2.0 * scale


@triton.jit
def signed_number(held, scales):
    held = held.to(tl.int32)
    bits = _bits(_number(held & 0x7F, scales))
    return _float(bits | ((held & 0x80) << 24))


@triton.jit
def nonnegative_number(held, scales):
    return _number(held.to(tl.int32), scales)


@triton.jit
def _code(magnitude, random, scales):
    """Return codes above `TWO` of magnitudes given by their bits."""
    inverse = _float((254 << 23) - _bits(_each(scales)))
    raised = _float(magnitude) * inverse + 2.0
    return (_bits(raised) + random) >> SHIFT


@triton.jit
def signed_code(x, random, scales):
    bits = _bits(x)
    code = _code(bits & MAGNITUDE, random, scales)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def nonnegative_code(x, random, scales):
    code = _code(_bits(x) & MAGNITUDE, random, scales)
    least = tl.where(x > 0, LEAST, 0)
    return tl.maximum(code, least).to(tl.uint8)
