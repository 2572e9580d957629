"""float64 functions for numbers that become float32: 23 bits more than a float32 has where its range is."""

from __future__ import annotations

import math

import formula_loop
import mpmath
import numpy as np
import pytest

EXACT = {
    "exp": mpmath.exp, "expm1": mpmath.expm1, "log": mpmath.log, "log1p": mpmath.log1p,
    "log1p_of_fraction": mpmath.log1p,
}  # fmt: skip
LOWEST, HIGHEST = -708.0, 709.0  # outside of them exp is 0 or infinite earlier than float64 is
SPECIAL = [0.0, math.inf, -math.inf, math.nan, 1e300, -1e300, 709.5, 709.7, 709.8, -720.0]
INF, NAN = math.inf, math.nan
ANY = None
LIMITS = {
    "exp": [1.0, INF, 0.0, NAN, INF, 0.0, INF, INF, INF, 0.0],
    "expm1": [0.0, INF, -1.0, NAN, INF, -1.0, INF, INF, INF, -1.0],
    "log": [-INF, INF, NAN, NAN, math.log(1e300), NAN, *map(math.log, (709.5, 709.7, 709.8)), NAN],
    "log1p": [0.0, INF, NAN, NAN, math.log(1e300), NAN, *map(math.log1p, (709.5, 709.7, 709.8)), NAN],
    "log1p_of_fraction": [0.0, *[ANY] * 2, NAN, *[ANY] * 6],
}  # fmt: skip


def applied(name, numbers):
    return formula_loop.applied("wide_math", name, np.array(numbers, np.float64)).tolist()


def points(name):
    """Both sides of every reduction, float32's extremes, and numbers next to 0 and 1."""
    random = np.random.default_rng(3)
    halves = (np.arange(-20, 21) + 0.5) * math.log(2)
    x = np.concatenate([
        random.uniform(LOWEST, HIGHEST, 400), random.uniform(-1, 1, 400), halves, halves * (1 + 1e-9),
        random.choice([-1, 1], 400) * 10.0 ** random.uniform(-45, 38, 400),
        1 + random.choice([-1, 1], 200) * 10.0 ** random.uniform(-16, -1, 200),
    ])  # fmt: skip
    if name == "log":
        return np.abs(x[x != 0])
    if name == "log1p_of_fraction":
        return np.concatenate([x[(x >= 0) & (x <= 1)], random.uniform(0, 1, 400), [1.0]])
    return x[x > -1] if name == "log1p" else x[(x > LOWEST) & (x < HIGHEST)]


@pytest.mark.parametrize("name", EXACT)
def test_relative_error_against_mpmath(name):
    x = points(name).tolist()
    with mpmath.workdps(40):
        errors = {
            one: abs(mpmath.mpf(got) / EXACT[name](mpmath.mpf(one)) - 1)
            for one, got in zip(x, applied(name, x), strict=True)
            if EXACT[name](mpmath.mpf(one)) != 0
        }
    far = name.startswith("exp") and max(e for one, e in errors.items() if abs(one) > 104)
    assert max(e for one, e in errors.items() if not (far and abs(one) > 104)) <= 2.0**-47.7
    assert far <= 2.0**-45


@pytest.mark.parametrize("name", EXACT)
def test_limits(name):
    known = [k for k, limit in enumerate(LIMITS[name]) if limit is not ANY]
    got, limits = np.array(applied(name, SPECIAL))[known], [LIMITS[name][k] for k in known]
    np.testing.assert_allclose(got, limits, rtol=1e-15)
