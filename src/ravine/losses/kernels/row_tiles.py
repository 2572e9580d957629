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
def _number(x, NUMBER: tl.constexpr):
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
    return _number(x, NUMBER)


@triton.jit
def write_slopes(gradient, place, slope, inside):
    """Write slopes in the type of the gradient."""
    if gradient.dtype.element_ty == tl.int16:
        tl.store(gradient + place, bfloat16_of(slope), mask=inside)
    else:
        tl.store(gradient + place, slope.to(gradient.dtype.element_ty), mask=inside)
