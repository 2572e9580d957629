"""The formulas of exp and its kin, as they are compiled, against mpmath and float64."""

from __future__ import annotations

from collections.abc import Callable

import formula_loop
import mpmath
import numpy as np
import pytest

from ravine.engine import cpu_compiler, machine_code

EXACT: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}
BOUND = {"exp": 1, "log": 1, "expm1": 1.25, "log1p": 1.5, "sigmoid": 1.5}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, -2.0])
LIMITS = {  # on SPECIAL
    "exp": [1, 1, np.inf, 0, np.nan, None, None],
    "expm1": [0.0, -0.0, np.inf, -1, np.nan, None, None],
    "log": [-np.inf, -np.inf, np.inf, np.nan, np.nan, np.nan, np.nan],
    "log1p": [0.0, -0.0, np.inf, np.nan, np.nan, -np.inf, np.nan],
    "tanh": [0.0, -0.0, 1, -1, np.nan, None, None],
    "sigmoid": [0.5, 0.5, 1, 0, np.nan, None, None],
}


def apply(name: str, x: np.ndarray) -> np.ndarray:
    return formula_loop.applied("vector_formulas", name, x)


def points(name: str, dtype: type, count: int) -> np.ndarray:
    """Finite points: all magnitudes, and where the result is neither 0 nor infinite."""
    info = np.finfo(dtype)
    random = np.random.default_rng(7)
    unsigned = np.uint32 if dtype is np.float32 else np.uint64
    top = info.maxexp * np.log(2)
    parts = [
        random.integers(0, np.iinfo(unsigned).max, count, dtype=unsigned).view(dtype),
        random.uniform(-1.1 * top, top, count).astype(dtype),
        random.uniform(-2, 2, count).astype(dtype),
        np.array([info.max, info.tiny, info.smallest_subnormal, top, -top, -1.1 * top], dtype),
    ]
    x = np.concatenate(parts)
    x = x[np.isfinite(x)]
    if name == "log":
        x = np.abs(x[x != 0])
    return x[x > -1] if name == "log1p" else x


def ulps(got: np.ndarray, exact: np.ndarray, dtype: type) -> float:
    """The largest error of finite values in units of the last place of ``dtype``."""
    info = np.finfo(dtype)
    exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp)
    return float(np.max(np.abs(got - exact) / np.ldexp(np.ones_like(exact), exponent - info.nmant)))


@pytest.mark.parametrize("name", EXACT)
def test_float32_against_mpmath_and_float64(name: str) -> None:
    x = points(name, np.float32, 200_000)
    got = apply(name, x)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        exact = {
            "sigmoid": lambda v: np.exp(np.minimum(v, 0)) / (1 + np.exp(-np.abs(v))),
        }.get(name, getattr(np, name, None))(wide)
    # float64 as the exact value is itself checked on some points.
    for i in range(0, len(x), 997):
        if np.isfinite(exact[i]) and abs(exact[i]) > 1e-300:
            assert exact[i] == pytest.approx(float(EXACT[name](mpmath.mpf(wide[i]))), rel=1e-14)
    infinite = exact > float(np.finfo(np.float32).max) * (1 + 2.0**-25)
    assert np.all(np.isposinf(got[infinite]))
    assert np.all(np.isfinite(got[~infinite]))
    assert ulps(got[~infinite].astype(np.float64), exact[~infinite], np.float32) <= BOUND.get(
        name, 2
    )


@pytest.mark.parametrize("name", EXACT)
def test_float64_against_mpmath(name: str) -> None:
    x = points(name, np.float64, 1500)
    got = apply(name, x)
    worst = 0.0
    with mpmath.workdps(40):
        for value, result in zip(x.tolist(), got.tolist(), strict=True):
            if abs(value) > 1e4 and name not in ("log", "log1p"):
                exact = mpmath.mpf(LIMITS[name][2 if value > 0 else 3])
            elif name == "expm1" and abs(value) < 1e-30:
                exact = mpmath.mpf(value)
            else:
                exact = EXACT[name](mpmath.mpf(value))
            if exact > np.finfo(np.float64).max:
                assert result == np.inf
                continue
            unit = np.spacing(min(abs(float(exact)), np.finfo(np.float64).max / 2))
            if float(exact) and abs(mpmath.mpf(float(exact))) > abs(exact):
                unit = min(unit, np.spacing(np.nextafter(abs(float(exact)), 0)))
            worst = max(worst, float(abs(mpmath.mpf(result) - exact) / mpmath.mpf(float(unit))))
    assert worst <= BOUND.get(name, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT)
def test_limits(name: str, dtype: type) -> None:
    got = apply(name, SPECIAL.astype(dtype))
    for value, expected in zip(got, LIMITS[name], strict=True):
        if expected is not None:
            np.testing.assert_array_equal(value, dtype(expected))
            if expected == 0 and name in ("expm1", "log1p", "tanh"):
                assert np.signbit(value) == np.signbit(expected)


@pytest.mark.parametrize("name", EXACT)
def test_subnormal_results(name: str) -> None:
    tiny = np.array([1e-45, 3e-42, 1e-39, -1e-42], np.float32)
    if name in ("expm1", "log1p", "tanh"):
        np.testing.assert_array_equal(apply(name, tiny), tiny)
    if name in ("exp", "sigmoid"):
        x = np.array([-90.0, -95.0, -100.0, -103.0], np.float32)
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
        assert expected.all()
        np.testing.assert_array_equal(apply(name, x), expected)


@pytest.mark.parametrize("name", EXACT)
def test_loop_is_vectorised(name: str) -> None:
    text = cpu_compiler.compiled(formula_loop.source("vector_formulas", name, "float32"), "kernel")
    code = str(machine_code.optimised(text))
    assert " x float>" in code
    assert f"@{name}f" not in code


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_of_negative(dtype: type) -> None:
    info = np.finfo(dtype)
    lowest = np.log(float(info.tiny))
    x = np.random.default_rng(5).uniform(1.2 * lowest, 0, 2_000_000).astype(dtype)
    x[:4] = [0, -np.inf, np.nan, -info.smallest_subnormal]
    got = apply("exp_of_negative", x)
    np.testing.assert_array_equal(got[:4], np.array([1, 0, np.nan, 1], dtype))
    # Zero from half a power of two below the normal numbers on; exact above, subnormal or not.
    assert np.all(got[x < lowest - 0.51 * np.log(2)] == 0)
    subnormal = (x < lowest) & (x > lowest - 0.49 * np.log(2))
    assert subnormal.sum() > 100
    exact = np.exp(x[subnormal].astype(np.longdouble))
    error = abs(got[subnormal].astype(np.longdouble) - exact)
    assert error.max() <= 2 * info.smallest_subnormal
    normal = x > 0.999 * lowest
    exact = np.exp(x[normal].astype(np.longdouble))
    assert ulps(got[normal].astype(np.longdouble), exact, dtype) <= 1.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log1p_of_fraction(dtype: type) -> None:
    random = np.random.default_rng(6)
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.concatenate(
        [[0, 1, np.nan, smallest], random.uniform(0, 1, 10**6), 10 ** random.uniform(-37, 0, 10**6)]
    ).astype(dtype)
    got = apply("log1p_of_fraction", x)
    np.testing.assert_array_equal(got[:4], np.array([0, np.log(2), np.nan, smallest], dtype))
    exact = np.log1p(x.astype(np.longdouble))
    known = ~np.isnan(x)
    assert ulps(got[known].astype(np.longdouble), exact[known], dtype) <= 1.5
