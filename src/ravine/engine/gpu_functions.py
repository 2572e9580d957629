"""The engine's functions as Triton sees them, for the generated GPU kernels.

They are written in what Triton itself has, without the vendor's libdevice, for two reasons.
Triton's interpreter runs them too (it knows no libdevice). And Triton's own ``exp``, ``log``,
``sqrt`` and ``/`` of float32 are the hardware's approximations, a few units off and worse near 0
and 1; a step is limited by memory, so that exact ones cost no time. In float64 Triton's own are
good to the last places.

Series rather than fitted polynomials: on the small intervals left after the reduction, the Taylor
terms named here leave less than half a unit of float32. ``x != x`` asks for NaN.
"""

# mypy: ignore-errors
# ruff: noqa: SIM108
from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "abs", "bfloat16_of", "divide", "exp", "expm1", "float32_of", "log", "log1p",
    "log1p_of_fraction", "maximum",
    "minimum", "negation", "power", "power2", "power3", "power4", "sigmoid", "sign", "sqrt", "tanh",
    "where",
]  # fmt: skip

LN2_HIGH = tl.constexpr(0.693145751953125)  # few enough bits that n * LN2_HIGH is exact
LN2_LOW = tl.constexpr(1.428606765330187e-06)


# --- choices -------------------------------------------------------------------------------------
# A number is spread over the block before it is compared: Triton's interpreter would spread the
# answer as a float, which it then cannot combine by | and &.


@triton.jit
def where(condition, a, b):
    if condition.dtype == tl.int1:
        chosen = condition
    else:  # a condition on hyperparameters comes as a number
        chosen = condition != 0
    return tl.where(chosen, a, b)


@triton.jit
def maximum(a, b):
    a, b = tl.broadcast(a, b)
    return tl.where((a >= b) | (a != a), a, b)


@triton.jit
def minimum(a, b):
    a, b = tl.broadcast(a, b)
    return tl.where((a <= b) | (a != a), a, b)


@triton.jit
def negation(condition):
    return condition == 0


@triton.jit
def sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))


@triton.jit
def abs(x):
    return tl.abs(x)


# --- arithmetic ----------------------------------------------------------------------------------


@triton.jit
def divide(a, b):
    if a.dtype == tl.float32 and b.dtype == tl.float32:
        quotient = tl.div_rn(a, b)
    else:
        quotient = a / b
    return quotient


@triton.jit
def sqrt(x):
    if x.dtype == tl.float32:
        root = tl.sqrt_rn(x)
    else:
        root = tl.sqrt(x)
    return root


@triton.jit
def power2(x):
    return x * x


@triton.jit
def power3(x):
    return x * x * x


@triton.jit
def power4(x):
    square = x * x
    return square * square


@triton.jit
def power(x, y):
    base, y = tl.broadcast(x.to(tl.float64), y.to(tl.float64))
    size = tl.abs(base)
    result = tl.exp(y * tl.log(tl.where(size == 0, 1.0, size)))
    zero = tl.where(y > 0, 0.0, float("inf"))
    result = tl.where(size == 0, zero + 0 * y, result)
    odd = (tl.floor(y) == y) & (tl.floor(y * 0.5) != y * 0.5)
    result = tl.where(odd & (base.to(tl.int64, bitcast=True) < 0), -result, result)
    unreal = (base < 0) & (size != float("inf")) & (tl.floor(y) != y)
    result = tl.where(unreal, float("nan"), result)
    result = tl.where((base == 1) | (y == 0), 1.0, result)
    return result.to(x.dtype)


# --- exponentials --------------------------------------------------------------------------------


@triton.jit
def _power_of_two(n):
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _within(x, low, high):
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def _reduced(x):
    """Split x = n ln 2 + r and return n (float32 and int32) and expm1(r)."""
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    series = 1 / 720 + r * (1 / 5040 + r * (1 / 40320))
    series = 0.5 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * series)))
    whole = tl.where(n == n, n, 0.0).to(tl.int32)
    return whole, r + r * r * series


@triton.jit
def exp(x):
    if x.dtype == tl.float32:
        n, rest = _reduced(_within(x, -104.0, 89.0))
        half = n >> 1  # two factors: either is a normal number even where the result is not
        result = (1 + rest) * _power_of_two(half) * _power_of_two(n - half)
    else:
        result = tl.exp(x)
    return result


@triton.jit
def expm1(x):
    if x.dtype == tl.float32:
        n, rest = _reduced(_within(x, -20.0, 20.0))
        scale = _power_of_two(n)
        result = tl.where(x > 20.0, exp(x), scale * rest + (scale - 1))
    else:
        # Kahan's quotient: the error of exp(x) near 1 is the same above and below the bar.
        u = tl.exp(x)
        inner = (u == 1) | (u - 1 == -1) | (u == float("inf"))
        quotient = (u - 1) * x / tl.log(tl.where(inner, 2.0, u))
        result = tl.where(u == 1, x, tl.where(inner, u - 1, quotient))
    return result


@triton.jit
def tanh(x):
    e = expm1(-2 * tl.abs(x))
    t = divide(e, 2 + e)
    return tl.where(x > 0, -t, t)


@triton.jit
def sigmoid(x):
    z = exp(-tl.abs(x))
    return divide(tl.where(x >= 0, 1.0, z), 1 + z)


# --- logarithms ----------------------------------------------------------------------------------


@triton.jit
def log(x):
    if x.dtype == tl.float32:
        small = x < 1.1754943508222875e-38  # subnormal: made normal first
        scaled = tl.where(small, x * 8388608.0, x)
        bits = scaled.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        n = (bits - 0x3F3504F3) >> 23  # x = m 2^n with m in [sqrt(1/2), sqrt(2))
        f = (bits - (n << 23)).to(tl.float32, bitcast=True) - 1
        s = divide(f, 2 + f)  # log(1 + f) = 2 atanh(s) = f - s (f - tail)
        z = s * s
        tail = z * (2 / 3 + z * (2 / 5 + z * (2 / 7 + z * (2 / 9))))
        k = (n - tl.where(small, 23, 0)).to(tl.float32)
        result = k * LN2_HIGH + ((f - s * (f - tail)) + k * LN2_LOW)
        result = tl.where(x == 0, -float("inf"), tl.where(x < 0, float("nan"), result))
        result = tl.where((x == float("inf")) | (x != x), x, result)
    else:
        result = tl.log(x)
    return result


@triton.jit
def log1p(x):
    u = 1 + x
    lost = tl.where(tl.abs(x) > 1, 1 - (u - x), x - (u - 1))  # what rounding took from u
    special = (u == float("inf")) | (u <= 0) | (u != u)
    correction = divide(lost, tl.where(special, 1.0, u))
    return log(u) + tl.where(special, 0.0, correction)


@triton.jit
def log1p_of_fraction(x):
    if x.dtype == tl.float32:  # one quotient, where log1p has two; the coefficients of the CPU's
        s = divide(x, x + 2)
        z = s * s
        tail = 0.66666445 + z * (0.40021725 + z * (0.27980256 + z * 0.28174643))
        half_square = x * x * 0.5
        result = x - (half_square - s * (half_square + z * tail))
    else:
        u = 1 + x
        result = tl.log(u) + (x - (u - 1)) / u
    return result


# --- bfloat16, held as int16 ---------------------------------------------------------------------
# As integers, because Triton's interpreter cuts where a GPU rounds to nearest even, and GPUs before
# compute capability 8.0 have no instruction for it.


@triton.jit
def float32_of(stored):
    return (stored.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def bfloat16_of(x):
    x = x.to(tl.float32)
    bits = tl.where(x != x, 0.0, x).to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(x != x, 0x7FC0, rounded).to(tl.int16)
