"""exp, log and their kin as plain instructions on a `Lane`, free of calls and branches.

A loop of them is vectorised. They are for float32 and for float64, by the type of the argument, with the
limits of the C library at infinities and NaN, subnormal numbers included. Largest error found on 12
million points, in units of the last place, on a processor with fused multiply-add:

    =================  =======  =======
    function           float32  float64
    =================  =======  =======
    exp                   0.87     0.90
    exp_of_negative       1.00     1.02
    expm1                 1.09     1.16
    log                   0.83     0.84
    log1p                 1.39     1.34
    log1p_of_fraction     1.38     1.37
    sigmoid               1.45     1.43
    tanh                  1.70     1.60
    =================  =======  =======

Sources of the schemes: Cody & Waite 1980 (argument reduction); the logarithm by s = f / (2 + f) as
in FreeBSD's msun. The coefficients are our own minimax fits of

    (exp(r) - 1 - r) / r^2             on abs(r) <= ln(2) / 2
    (log((1 + s) / (1 - s)) - 2 s) / s^3   in s^2, on abs(s) <= (sqrt(2) - 1) / (sqrt(2) + 1)
                                           and on abs(s) <= 1 / 3
"""

from __future__ import annotations

from dataclasses import dataclass

from ravine.engine.lanes import Bits, Lane


@dataclass(frozen=True)
class Format:
    """The numbers that depend on the float format."""

    digits: int  # bits after the point of a significand
    bias: int  # what is added to an exponent before it is stored
    ln2: tuple[float, float]  # high part, with enough zero bits that n * high is exact; the rest
    exp_range: tuple[float, float]  # exp is 0 below and infinite above
    tanh_one: float  # tanh is 1 above
    exp_tail: tuple[float, ...]
    log_tail: tuple[float, ...]
    fraction_tail: tuple[float, ...]

    @property
    def to_integer(self) -> float:
        """A number so large that adding it rounds to an integer, found in the sum's low bits."""
        return 1.5 * 2.0**self.digits

    @property
    def negligible(self) -> float:
        """Below this, expm1(x) = log1p(x) = x."""
        return 2.0 ** (-self.digits - 2)


_SINGLE = Format(
    digits=23,
    bias=127,
    ln2=(float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cf79abcap-20")),
    exp_range=(-104.0, 89.0),
    tanh_one=10.0,
    exp_tail=(0.49999994, 0.1666652, 0.041668393, 0.008368782, 0.0013814454),
    log_tail=(0.6666666, 0.40000337, 0.28537166, 0.23585002),
    fraction_tail=(0.66666445, 0.40021725, 0.27980256, 0.28174643),
)
DOUBLE = Format(
    digits=52,
    bias=1023,
    ln2=(float.fromhex("0x1.62e42fefa0000p-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")),
    exp_range=(-746.0, 710.0),
    tanh_one=20.0,
    exp_tail=(
        0.5000000000000006, 0.16666666666666685, 0.041666666666574974, 0.008333333333314765,
        0.0013888888932029526, 0.0001984126990268468, 2.4801504798349177e-05,
        2.7557228240696705e-06, 2.762620461158084e-07, 2.511438835063927e-08,
    ),
    log_tail=(
        0.6666666666666735, 0.3999999999940744, 0.28571428744150773, 0.22222198377644758,
        0.1818357520383828, 0.1531375478458937, 0.14799074196524273,
    ),
    fraction_tail=(
        0.666666666666665, 0.4000000000010303, 0.2857142855304398, 0.2222222373340336,
        0.1818174970313874, 0.15386482482031053, 0.13301484582106346, 0.12105432544720109,
        0.08330366356547703, 0.17056549541595795,
    ),
)  # fmt: skip
LOG2_E = 1.4426950408889634
_INFINITY, _NAN = float("inf"), float("nan")


def _format(x: Lane) -> Format:
    return _SINGLE if x.single else DOUBLE


# --- the formulas --------------------------------------------------------------------------------


def power_of_two(n: Bits, form: Format) -> Lane:
    return ((n + form.bias) << form.digits).as_float()


def _reduce(x: Lane) -> tuple[Bits, Lane, Lane]:
    """Split x = n ln 2 + r + c with an integer n, abs(r) <= ln(2) / 2 and c below r's last bit."""
    form = _format(x)
    shifted = x.fma(LOG2_E, form.to_integer)
    n = shifted - form.to_integer
    high = (-n).fma(form.ln2[0], x)  # exact
    r = (-n).fma(form.ln2[1], high)
    c = (-n).fma(form.ln2[1], high - r)
    # As bits and not by a conversion, whose result for NaN LLVM leaves undefined.
    return shifted.bits() - x.constant(form.to_integer).bits(), r, c


def exp(x: Lane) -> Lane:
    form = _format(x)
    x = x.at_least(form.exp_range[0]).at_most(form.exp_range[1])
    n, r, c = _reduce(x)
    y = r + (r * r).fma(r.polynomial(form.exp_tail), c) + 1.0
    # 2^n in two factors: either alone is a normal number even where the result is not.
    half = n >> 1
    return y * power_of_two(half, form) * power_of_two(n - half, form)


def exp_of_negative(x: Lane) -> Lane:
    form = _format(x)
    # There n = -bias, and the bits that would be 2^n are those of 0: no comparison is needed.
    lowest = -form.bias * 0.693147
    n, r, _ = _reduce(x.at_least(lowest))
    y = (r * r).fma(r.polynomial(form.exp_tail), r) + 1.0
    return y * power_of_two(n, form)


def expm1(x: Lane) -> Lane:
    form = _format(x)
    clamped = x.at_least(-form.digits * 1.0).at_most(form.exp_range[1])
    n, r, c = _reduce(clamped)
    tail = (r * r).fma(r.polynomial(form.exp_tail), c)
    # 2^n (1 + r + tail) - 1 with the rounding error of the leading sum added back. Computed as half
    # of it, because 2^n itself may be infinite where the result is not.
    scale = power_of_two(n - 1, form)
    base = scale - 0.5
    head = scale.fma(r, base)
    error = scale.fma(r, base - head)
    result = (head + scale.fma(tail, error)) * 2.0
    return x.where(abs(x) < form.negligible, result)


def log_of_parts(f: Lane, exponent: Lane) -> Lane:
    """Return log((1 + f) 2^exponent) for 1 + f between sqrt(1/2) and sqrt(2)."""
    form = _format(f)
    s, half_square, tail = _bent(f, form.log_tail)
    small = s.fma(half_square + tail, exponent * form.ln2[1])
    return exponent.fma(form.ln2[0], f - (half_square - small))


def _bent(f: Lane, coefficients: tuple[float, ...]) -> tuple[Lane, Lane, Lane]:
    """Return s, f^2 / 2 and t with log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + t))."""
    s = f / (f + 2.0)
    z = s * s
    return s, f * f * 0.5, z * z.polynomial(coefficients)


def split(x: Lane) -> tuple[Bits, Lane]:
    """Return n and m with x = m 2^n and m between sqrt(1/2) and sqrt(2), for a normal x > 0."""
    form = _format(x)
    bits = x.bits()
    n = (bits - x.constant(0.5**0.5).bits()) >> form.digits
    return n, (bits - (n << form.digits)).as_float()


def integer(n: Bits, like: Lane) -> Lane:
    """Return the small integer n as a float, without a conversion (AVX2 has none for 64 bits)."""
    number = _format(like).to_integer
    return (n + like.constant(number).bits()).as_float() - number


def log(x: Lane) -> Lane:
    form = _format(x)
    smallest = 2.0 ** (1 - form.bias)
    subnormal = x < smallest
    n, m = split((x * 2.0**form.digits).where(subnormal, x))
    exponent = integer(n, x)
    exponent = (exponent - form.digits).where(subnormal, exponent)
    return with_limits(log_of_parts(m - 1.0, exponent), x)


def with_limits(result: Lane, x: Lane) -> Lane:
    """Return log's ``result`` with its values where ``x`` is zero, negative, infinite or NaN."""
    result = result.where(x < _INFINITY, x)  # infinity and NaN are their own logarithm
    result = result.constant(_NAN).where(x < 0.0, result)
    return result.constant(-_INFINITY).where(x.equals(0.0), result)


def log1p(x: Lane) -> Lane:
    form = _format(x)
    u = x + 1.0
    z = u - 1.0
    lost = (1.0 - (u - z)) + (x - z)  # exactly 1 + x - u
    n, m = split(u)
    # n is 128 (1024) for the largest x, and 2^-n not a normal number: its double is.
    f = (lost * 0.5).fma(power_of_two(1 - n, form), m - 1.0)
    result = with_limits(log_of_parts(f, integer(n, x)), u)
    return x.where(abs(x) < form.negligible, result)


def log1p_of_fraction(x: Lane) -> Lane:
    s, half_square, tail = _bent(x, _format(x).fraction_tail)
    return x - (half_square - s * (half_square + tail))


def _quotient(a: Lane, b: Lane, large: float) -> Lane:
    """Return a / (b + large) for 0 <= b, a division and a correction for what the sum has lost."""
    total = b + large
    lost = b - (total - large)
    inverse = 1.0 / total
    quotient = a * inverse
    rest = (-quotient).fma(total, a) - quotient * lost
    return rest.fma(inverse, quotient)


def tanh(x: Lane) -> Lane:
    t = expm1(abs(x).at_most(_format(x).tanh_one) * 2.0)
    return _quotient(t, t, 2.0).with_sign_of(x)


def sigmoid(x: Lane) -> Lane:
    e = exp(-abs(x))
    return _quotient(e.where(x < 0.0, 1.0), e, 1.0)
