"""exp and its kin in float64 where only a float32 is wanted in the end.

A loss whose terms cancel is computed in float64 and stored as float32. There the functions of
`vector_formulas` do more than is asked of them: the last bit, numbers near the ends of float64's range. What
is left is half of the work, and `exp` and `expm1` of one argument are the same instructions but for the
last two, which LLVM sees: an equation that calls both pays for one.

Relative error at most 2^-47.7, which leaves 23 bits to cancel; of `exp` and `expm1` only up to abs(x) = 104,
where e^x fills float32's range, and 2^-45 beyond. Results beyond 2^1023 are infinite, those below 2^-1022
are 0; infinities and NaN are as there.
"""

from __future__ import annotations

from ravine.engine.lanes import Lane
from ravine.engine.vector_formulas import (
    DOUBLE,
    LOG2_E,
    integer,
    power_of_two,
    split,
    with_limits,
)

__all__ = ["exp", "expm1", "log", "log1p", "log1p_of_fraction"]

_LOWEST = -709.09  # 2^n is 0 there: n = -1023 gives the bits of 0
_INFINITE = 709.4  # from here on n is 1024, which gives the bits of infinity
_BEYOND = 710.0  # there r > 0, so that no infinity is taken from another
_LN2 = 0.6931471805599453  # 2^-55 too little, n times
_TAIL = (
    0.5000000000000007, 0.16666666666630517, 0.041666666666543554, 0.008333333362690348,
    0.0013888888943011767, 0.00019841195877257908, 2.480149162264383e-05, 2.7630682932913344e-06,
    2.763131481309953e-07,
)  # fmt: skip
_LOG_TAIL = (
    0.6666666666661094, 0.40000000046018014, 0.2857141750744537, 0.22223377644218592,
    0.18122673463292258, 0.16838374623151028,
)  # fmt: skip
_FRACTION_TAIL = (
    0.6666666666647517, 0.40000000073935016, 0.28571420169424605, 0.22222653499129472,
    0.18170047768870098, 0.15566428786628664, 0.11752877124732482, 0.18771159167976204,
)  # fmt: skip


def _parts(x: Lane) -> tuple[Lane, Lane]:
    """Return 2^n and p with e^x = 2^n (1 + p) and abs(p) < 0.42."""
    x = x.constant(_BEYOND).where(x > _INFINITE, x).at_least(_LOWEST)
    shifted = x.fma(LOG2_E, DOUBLE.to_integer)
    n = shifted - DOUBLE.to_integer
    r = (-n).fma(_LN2, x)
    p = (r * r).fma(r.polynomial(_TAIL), r)
    bias = DOUBLE.bias - x.constant(DOUBLE.to_integer).bits()
    return ((shifted.bits() + bias) << DOUBLE.digits).as_float(), p


def exp(x: Lane) -> Lane:
    scale, p = _parts(x)
    return scale.fma(p, scale)


def expm1(x: Lane) -> Lane:
    scale, p = _parts(x)
    return scale.fma(p, scale - 1.0)


def log(x: Lane) -> Lane:
    n, m = split(x)
    return with_limits(_log_of_parts(m - 1.0, integer(n, x)), x)


def log1p(x: Lane) -> Lane:
    u = x + 1.0
    n, m = split(u)
    # What the sum has lost matters where x is small, and there it is exact.
    f = (x - (u - 1.0)).fma(power_of_two(0 - n, DOUBLE), m - 1.0)
    return with_limits(_log_of_parts(f, integer(n, x)), u)


def log1p_of_fraction(x: Lane) -> Lane:
    return _log1p(x, _FRACTION_TAIL)


def _log_of_parts(f: Lane, exponent: Lane) -> Lane:
    """Return log((1 + f) 2^exponent) for 1 + f between sqrt(1/2) and sqrt(2)."""
    return exponent.fma(_LN2, _log1p(f, _LOG_TAIL))


def _log1p(f: Lane, coefficients: tuple[float, ...]) -> Lane:
    s = f / (f + 2.0)
    z = s * s
    return s * z.fma(z.polynomial(coefficients), 2.0)
