"""The GPU executor against the reference; run by test_gpu.py in a process of its own.

Under TRITON_INTERPRET=1 the tensors are on the CPU, else on the GPU.
"""

from __future__ import annotations

import math

import pytest
import torch
from gpu_support import (
    DEVICE,
    ONE_TYPE,
    RULE_CASES,
    SIZES,
    TOLERANCE,
    assert_same,
    expected,
    launch,
    numbers_of,
    random_tensors,
    rule_program,
)  # fmt: skip

from ravine.engine import gpu
from ravine.engine.element_types import supports
from ravine.engine.equation import Equation
from ravine.engine.gpu_source import kernel_source
from ravine.engine.program import Program, Stage
from ravine.rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")


@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [
        (name, options, dtype)
        for name, options in RULE_CASES
        if not RULES[name].equation.reduces  # those that need sweeps are in gpu_optimizer_cases.py
        for dtype in (ONE_TYPE if options else TOLERANCE)
    ],
)
def test_rules_against_the_reference(name, options, dtype):
    program = rule_program(name)
    types = dict.fromkeys(program.variables, dtype)
    computed = torch.float64
    tensors = random_tensors(program, types)
    if options.get("centered"):
        for t in tensors:
            t["a"] *= 0.125
    base = {**program.hyperparameters, **options, "norm": 1.0, **numbers_of(name)}
    rows = [0, 1, 0, 1, 1, 0, 1][: len(SIZES)]
    made = launch(program, types, tensors, [{**base, "t": 1, "lr": 0.0}] * 2)
    made.set_rows(rows)
    specialised = program.specialise({**base, "t": 1, "lr": 0.0})
    for t in (1, 2, 3):
        values = [{**base, "t": t, "lr": 0.1}, {**base, "t": t + 5, "lr": 0.003}]
        want = [
            expected(program, one, values[row], types, computed)
            for one, row in zip(tensors, rows, strict=True)
        ]
        for row in (0, 1):
            made.set_scalars(row, specialised.scalars(values[row]))
        made.run()
        assert_same(tensors, want, dtype)


@pytest.mark.parametrize("state", [torch.float32, torch.float64], ids=str)
def test_types_may_differ_between_variables(state):
    program = rule_program("Adam")
    types = dict.fromkeys(program.variables, state) | {"w": torch.bfloat16, "g": torch.float16}
    tensors = random_tensors(program, types)
    values = {**program.hyperparameters, "t": 2, "lr": 0.1}
    want = [expected(program, one, values, types, torch.float64) for one in tensors]
    launch(program, types, tensors, [values]).run()
    for got, one in zip(tensors, want, strict=True):
        for name, tensor in one.items():
            torch.testing.assert_close(got[name], tensor, **TOLERANCE[types[name]])


def test_only_the_selected_tensors_change():
    program = rule_program("GradientDescent")
    types = dict.fromkeys(program.variables, torch.float32)
    tensors = random_tensors(program, types)
    before = [t["w"].clone() for t in tensors]
    made = launch(program, types, tensors, [{"lr": 1.0}])
    for chosen in ([3, 0, 1], [], [2], list(range(len(SIZES)))):
        for t, w in zip(tensors, before, strict=True):
            t["w"].copy_(w)
        made.select(chosen)
        made.run()
        assert made.elements == sum(SIZES[k] for k in chosen)
        for k, (t, w) in enumerate(zip(tensors, before, strict=True)):
            torch.testing.assert_close(t["w"], w - t["g"] if k in chosen else w)


def test_rows_grow():
    program = rule_program("GradientDescent")
    types = dict.fromkeys(program.variables, torch.float64)
    tensors = random_tensors(program, types, [5, 5, 5])
    before = [t["w"].clone() for t in tensors]
    made = launch(program, types, tensors, [{"lr": 1.0}])
    made.run()
    made.grow_scalars(3)
    for row in range(3):
        made.set_scalars(row, [float(row)])
    made.set_rows([2, 1, 0])
    made.run()
    for t, w, total in zip(tensors, before, (3, 2, 1), strict=True):
        torch.testing.assert_close(t["w"], w - total * t["g"])


def test_new_addresses_are_used():
    program = rule_program("GradientDescent")
    types = dict.fromkeys(program.variables, torch.float32)
    tensors = random_tensors(program, types, [1500, 7])
    made = launch(program, types, tensors, [{"lr": 0.5}])
    made.run()
    others = [torch.full_like(t["g"], 3.0) for t in tensors]
    want = [t["w"] - 1.5 for t in tensors]
    made.set_addresses(made_index(program, "g"), [g.data_ptr() for g in others])
    made.run()
    for t, w in zip(tensors, want, strict=True):
        torch.testing.assert_close(t["w"], w)


def made_index(program, name):
    return [n for n in program.variables if n in ("w", "g")].index(name)


def test_tensors_that_begin_anywhere():
    program = rule_program("GradientDescent")
    types = dict.fromkeys(program.variables, torch.bfloat16)
    whole = random_tensors(program, types, [5000, 1025])
    tensors = [{name: x[1:] for name, x in one.items()} for one in whole]
    want = [expected(program, one, {"lr": 0.5}, types, torch.float64) for one in tensors]
    first = [one["w"][0].clone() for one in whole]
    launch(program, types, tensors, [{"lr": 0.5}]).run()
    assert_same(tensors, want, torch.bfloat16)
    assert [one["w"][0].item() for one in whole] == [x.item() for x in first]


# --- totals --------------------------------------------------------------------------------------


def squares(g, *, scale):
    return g * g, scale * g


def test_totals_are_sums_in_float64():
    program = Program([Stage(Equation(squares), ("g",), ("total", "weighted"))])
    generator = torch.Generator().manual_seed(3)
    tensors = [
        {"g": torch.randn(size, generator=generator, dtype=torch.float32).to(DEVICE)}
        for size in SIZES
    ]
    made = launch(
        program,
        {"g": torch.float32},
        tensors,
        [{"scale": 3.0}],
        totals=("total", "weighted"),
    )
    for chosen in (range(len(SIZES)), [2, 3], [0]):
        made.select(list(chosen))
        made.run()
        chosen_g = [tensors[k]["g"].cpu() for k in chosen]
        # Each term is rounded to float32, the sum is not.
        want = [
            math.fsum(x for g in chosen_g for x in (g * g).tolist()),
            math.fsum(x for g in chosen_g for x in (3 * g).tolist()),
        ]
        assert made.totals() == pytest.approx(want, rel=1e-13, abs=1e-12)


def test_totals_of_nothing_are_zero():
    program = Program([Stage(Equation(squares), ("g",), ("total", "weighted"))])
    tensors = [{"g": torch.ones(4, device=DEVICE)}]
    made = launch(
        program, {"g": torch.float32}, tensors, [{"scale": 1.0}], totals=("total", "weighted")
    )
    made.run()
    assert made.totals() == [4.0, 4.0]
    made.select([])
    made.run()
    assert made.totals() == [0.0, 0.0]


@pytest.mark.parametrize("sizes", [[(3000,), (5,), (0,), (1024,), (4000,)], [(5, 7), (2000, 3)]])
def test_other_sizes_in_the_same_tables(sizes):
    program = Program([Stage(Equation(squares), ("g",), ("total", "weighted"))])
    g = torch.arange(5000, device=DEVICE, dtype=torch.float32).sqrt()
    tensors = [{"g": g}] * len(sizes[0])
    types, values = {"g": torch.float32}, [{"scale": 1.0}]
    made = launch(program, types, tensors, values, totals=("total", "weighted"))
    for now in sizes:
        made.resize(now)
        assert made.totals() == [0.0, 0.0]  # not those of before
        made.run()
        assert made.totals()[0] == pytest.approx(sum(n * (n - 1) / 2 for n in now), rel=1e-6)
        each = made.tensor_totals()[0].tolist()
        assert each == pytest.approx([n * (n - 1) / 2 for n in now], rel=1e-6)


# --- tables --------------------------------------------------------------------------------------


def test_offsets_have_64_bits():
    """The tables say 2**33 elements lie before this block; only the block itself is in memory."""
    program = rule_program("GradientDescent").specialise({"lr": 1.0})
    types = dict.fromkeys(program.variables, torch.float64)
    kernel = gpu.compiled(program, types).function
    before = 2**33
    w, g = (torch.arange(7, dtype=torch.float64, device=DEVICE) for _ in range(2))
    addresses = {"w": w.data_ptr() - 8 * before, "g": g.data_ptr() - 8 * before}
    record = [addresses[name] for name in program.variables]
    record += [0, -before // gpu.BLOCK, before + 7]
    scalars = torch.tensor([0.5], dtype=torch.float64, device=DEVICE)
    owners = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    records = torch.tensor(record, dtype=torch.int64, device=DEVICE)
    kernel[(1,)](owners, records, scalars, scalars, ALIGNED=False, BLOCK=gpu.BLOCK)
    assert torch.equal(w, 0.5 * g)


def test_the_source_is_the_same_for_the_same_program():
    program = rule_program("Adam").specialise({"amsgrad": False, "betas": (0.9, 0.999)})
    types = dict.fromkeys(program.variables, torch.float32)
    assert kernel_source(program, types) == kernel_source(program, dict(types))
    assert gpu.compiled(program, types) is gpu.compiled(program, types)


def test_supported_types():
    assert gpu.unavailable() == ""
    assert all(supports(dtype) for dtype in TOLERANCE)
    assert not supports(torch.int64) and not supports(torch.complex64)
