"""What the Triton kernels over rows of scores have in common: scores read, differences, slopes written."""

# mypy: ignore-errors
# ruff: noqa: RET505
from __future__ import annotations

import triton
import triton.language as tl

from ravine.engine.gpu_functions import bfloat16_of, float32_of


@triton.jit
def difference(x, top):
    """Equal ones differ by 0, infinite ones too."""
    return tl.where(x == top, 0.0, x - top)


@triton.jit
def product(a, d):
    """Nothing of an infinity is nothing."""
    return tl.where(a == 0, 0.0, a * d)


@triton.jit
def number_of(x, NUMBER: tl.constexpr):
    """Return what was read in the type of the arithmetic."""
    if x.dtype == tl.int16:
        return float32_of(x)
    else:
        return x.to(NUMBER)


@triton.jit
def scores_at(scores, place, inside, NUMBER: tl.constexpr):
    """Return scores in the type of the arithmetic, -inf for what is not inside. bfloat16 are int16."""
    if scores.dtype.element_ty == tl.int16:
        x = tl.load(scores + place, mask=inside, other=-128)  # the bits of -inf
    else:
        x = tl.load(scores + place, mask=inside, other=-float("inf"))
    return number_of(x, NUMBER)


@triton.jit
def stored_as(gradient, slope):
    """Return slopes in the type of the gradient."""
    if gradient.dtype.element_ty == tl.int16:
        return bfloat16_of(slope)
    else:
        return slope.to(gradient.dtype.element_ty)


@triton.jit
def write_slopes(gradient, place, slope, inside):
    """Write slopes in the type of the gradient."""
    tl.store(gradient + place, stored_as(gradient, slope), mask=inside)
