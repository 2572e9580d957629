"""The functions and storage types of GPU kernels; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gpu_support import DEVICE, TOLERANCE, assert_same, expected, launch, random_tensors

from ravine.engine import functions as f
from ravine.engine.equation import Equation
from ravine.engine.program import Program, Stage

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")

# --- functions -----------------------------------------------------------------------------------

HARD = [
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, -1e-30, 1e-7, -1e-7, 1e-3, -1e-3, 0.9999999, 1.0000001,
    -0.9999999, 20.0, -20.0, 87.0, 88.7, -87.5, -100.0, -104.5, 89.5, 700.0, -745.0, 1e10, -1e10,
    3e38, -3e38, 1e-40, 1.2e-38, math.inf, -math.inf, math.nan,
]  # fmt: skip


def e_exp(x):
    return f.exp(x)


def e_expm1(x):
    return f.expm1(x)


def e_log(x):
    return f.log(x)


def e_log1p(x):
    return f.log1p(x)


def e_tanh(x):
    return f.tanh(x)


def e_sigmoid(x):
    return f.sigmoid(x)


def e_sqrt(x):
    return f.sqrt(x)


def e_sign(x):
    return f.sign(x)


def e_abs(x):
    return abs(x)


def e_divide(x):
    return +x / 3 + 1 / x


def e_maximum(x):
    return f.maximum(x, 0.25) + f.maximum(0.25, x)


def e_minimum(x):
    return min(x, 0.25) + f.minimum(0.25, x)


def e_where(x):
    return f.where((x > 0.5) & ~(x > 2), x, f.where((x < -1) | (x == 0), -x, 7.0))


def e_powers(x):
    return x**2 - x**3 + x**4 + x**0.5


ULPS = {
    e_exp: 2, e_expm1: 3, e_log: 2, e_log1p: 3, e_tanh: 4, e_sigmoid: 3, e_sqrt: 0, e_sign: 0,
    e_abs: 0, e_divide: 1, e_maximum: 0, e_minimum: 0, e_where: 0,
}  # fmt: skip


def units_apart(got, want):
    """Return the distance in units of the last place; what is equal, or NaN both, is 0 apart."""
    got, want = got.cpu(), want.cpu()
    same = (got == want) | (got.isnan() & want.isnan())
    nearby = torch.nextafter(want.abs(), torch.tensor(math.inf, dtype=want.dtype)) - want.abs()
    apart = ((got - want).abs().double() / nearby.double()).nan_to_num(math.inf, math.inf)
    return torch.where(same, 0.0, apart)


def elementwise(equation, x, y_type=None, **values):
    program = Program([Stage(Equation(equation), ("x",), ("y",))])
    y = torch.full_like(x, 9.0, dtype=y_type or x.dtype)
    tensors = [{"x": x.clone(), "y": y}]
    launch(program, {"x": x.dtype, "y": y.dtype}, tensors, [values]).run()
    assert torch.equal(tensors[0]["x"].nan_to_num(), x.nan_to_num())
    return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("equation", ULPS, ids=lambda e: e.__name__)
def test_functions_to_the_last_places(equation, dtype):
    generator = torch.Generator().manual_seed(1)
    spread = torch.cat(
        [
            torch.tensor(HARD, dtype=torch.float64),
            torch.linspace(-110, 110, 1500, dtype=torch.float64),
            torch.linspace(-1.5, 1.5, 1500, dtype=torch.float64),
            torch.randn(500, generator=generator, dtype=torch.float64).sinh().exp(),
        ]
    )
    x = spread.to(dtype).to(DEVICE)
    oracle = Equation(equation).reference(x.double()).to(dtype)
    if equation is e_sign:  # torch calls the sign of NaN 0
        oracle = torch.where(x.isnan(), x, oracle)
    allowed = ULPS[equation] + (dtype is torch.float64)  # in float64 the oracle is off, too
    apart = units_apart(elementwise(equation, x), oracle)
    worst = int(apart.argmax())
    assert apart[worst] <= allowed, (x[worst].item(), apart[worst].item())


def e_log1p_of_fraction(x):
    return f.log1p_of_fraction(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_log1p_of_fractions(dtype):
    tiny = torch.logspace(-45, 0, 1500, dtype=torch.float64)
    spread = torch.cat([torch.linspace(0, 1, 4000, dtype=torch.float64), tiny])
    x = torch.cat([spread, torch.tensor([math.nan])]).to(dtype).to(DEVICE)
    oracle = torch.log1p(x.double()).to(dtype)
    apart = units_apart(elementwise(e_log1p_of_fraction, x), oracle)
    assert apart.max() <= 2


def e_power(x, *, p):
    return x**p


@pytest.mark.parametrize("p", [0, 1, -1, 2.5, -0.5, 3, 5, -3, 0.1, 10, -1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_power(p, dtype):
    x = torch.tensor([*HARD, *np.linspace(-5, 5, 101)], dtype=dtype, device=DEVICE)
    exponent = float(torch.tensor(p, dtype=dtype))
    want = torch.from_numpy(np.power(x.cpu().double().numpy(), exponent)).to(dtype)
    got = elementwise(e_power, x, p=p).cpu()
    rtol = 1e-12 if dtype is torch.float64 else 2**-23
    torch.testing.assert_close(got, want, rtol=rtol, atol=0, equal_nan=True)


def test_small_powers_are_products():
    x = torch.linspace(0, 3, 50, dtype=torch.float64, device=DEVICE)
    want = x**2 - x**3 + x**4 + x.sqrt()
    torch.testing.assert_close(elementwise(e_powers, x), want, rtol=1e-14, atol=1e-14)


def e_where_number(x, *, t):
    return f.where(t == 1, x, -x)


@pytest.mark.parametrize("t", [1, 2])
def test_condition_on_a_hyperparameter(t):
    x = torch.linspace(-3, 3, 5, device=DEVICE)
    assert torch.equal(elementwise(e_where_number, x, t=t), x if t == 1 else -x)


def everything(w, g, m, *, t, lr, delta=0.5):
    m = 0.9 * m + 0.1 * f.tanh(g) * f.sigmoid(w) - f.where(t > 1, f.log(abs(w) + 1), f.sign(g))
    u = f.minimum(f.maximum(f.expm1(m), -delta), delta) + f.log1p(m * m) + f.sqrt(m**4 + m**2)
    return w - lr * f.where(~(u > delta), u, f.exp(-u)) / (1 + abs(g) ** 1.5), m


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("t", [1, 2])
def test_an_equation_of_every_function(dtype, t):
    program = Program([Stage(Equation(everything), ("w", "g", "m"), ("w", "m"))], private=("g",))
    types = dict.fromkeys(program.variables, dtype)
    tensors = random_tensors(program, types)
    values = {"t": t, "lr": 0.1, "delta": 0.5}
    want = [expected(program, one, values, types, torch.float64) for one in tensors]
    launch(program, types, tensors, [values]).run()
    assert_same(tensors, want, dtype)


def names_of_the_kernel(block, left, lane, record, row, *, tl=2.0, BLOCK=3.0):
    inside = tl * left - BLOCK * lane
    return block + inside + record, row + lane


def test_names_of_variables_do_not_meet_the_kernels():
    equation = Equation(names_of_the_kernel)
    program = Program([Stage(equation, equation.tensors, ("block", "row"))])
    types = dict.fromkeys(program.variables, torch.float64)
    tensors = random_tensors(program, types)
    values = dict(program.hyperparameters)
    want = [expected(program, one, values, types, torch.float64) for one in tensors]
    launch(program, types, tensors, [values]).run()
    assert_same(tensors, want, torch.float64)


# --- storage -------------------------------------------------------------------------------------


def e_same(x):
    return x * 1


def test_every_bfloat16_is_read_and_written_back():
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    x = bits.view(torch.bfloat16).to(DEVICE)
    y = elementwise(e_same, x)
    number = ~x.isnan()
    assert torch.equal(y[number].view(torch.int16), x[number].view(torch.int16))
    assert y[~number].isnan().all()


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_nearest_even(stored):
    generator = torch.Generator().manual_seed(5)
    bits = torch.randint(-(2**31), 2**31, (20_000,), generator=generator).to(torch.int32)
    halfway = (torch.arange(4000, dtype=torch.int32) << 15) + 0x3F000000
    near_one = torch.rand(20_000, generator=generator) * 4 - 2
    x = torch.cat([bits.view(torch.float32), halfway.view(torch.float32), near_one]).to(DEVICE)
    y = elementwise(e_same, x, stored)
    assert torch.equal(y.isnan(), x.isnan())
    number = ~x.isnan()
    assert torch.equal(y[number], x[number].to(stored))
