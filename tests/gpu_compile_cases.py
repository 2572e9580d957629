"""GPU kernels compiled down to machine code of one GPU, without having one; run by test_gpu.py."""

from __future__ import annotations

import re

import gpu_function_cases as functions
import pytest
import torch
from gpu_support import RULE_CASES, TOLERANCE

from ravine.engine import gpu, kernel_cache
from ravine.engine.equation import Equation
from ravine.engine.gpu_source import kernel_source
from ravine.engine.norm import SQUARES
from ravine.engine.program import Program, Stage
from ravine.optim.options import step_program
from ravine.rules import RULES

triton = pytest.importorskip("triton")

SIGNATURE = {"owners": "*i32", "records": "*i64", "scalars": "*fp64", "sums": "*fp64"}
SIGNATURE |= {"ALIGNED": "constexpr", "BLOCK": "constexpr"}
EVERYTHING = {
    "clip_norm": 1.0, "clip_value": 0.5, "maximize": True, "l2": 0.1, "l1": 0.1,
    "weight_decay": 0.1, "decay": "decoupled", "average": 0.9,
}  # fmt: skip


def assembly(program, types, totals=(), aligned=True):
    """Return what a kernel becomes for compute capability 9.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = kernel_source(program, types, totals)
    kernel = kernel_cache.load(source, "gpu").kernel
    compiled = triton.compile(
        ASTSource(
            kernel,
            SIGNATURE,
            {"ALIGNED": aligned, "BLOCK": gpu.BLOCK},
            {(k,): [["tt.divisibility", 16]] for k in range(4)},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": gpu.WARPS, "enable_fp_fusion": True},
    )
    assert compiled.asm["cubin"]
    return compiled.asm["ptx"]


def specialised_step(name, **options):
    program = step_program(RULES[name])
    values = {**program.hyperparameters, **RULES[name].defaults, **options}
    return program.specialise(values)


# An option changes an equation, and a type how it is loaded and stored: each case in one type, and each rule
# in all.
@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [
        (name, options, dtype)
        for name, options in RULE_CASES
        for dtype in TOLERANCE
        if dtype is torch.float32 or not options
    ],
)
def test_rules_compile(name, options, dtype):
    program = specialised_step(name, **options)
    for one in (*program.sweeps, program):
        assert "sm_90" in assembly(one, dict.fromkeys(one.variables, dtype))


@pytest.mark.parametrize("name", RULES)
def test_every_option_at_once_compiles(name):
    program = specialised_step(name, **EVERYTHING)
    assert len(program.steps) >= (7 if "weight_decay" in RULES[name].hyperparameters else 8)
    for one in program.sweeps:
        assembly(one, dict.fromkeys(one.variables, torch.float32))
    assembly(program, dict.fromkeys(program.variables, torch.float32))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_function_compiles(dtype):
    program = Program(
        [Stage(Equation(functions.everything), ("w", "g", "m"), ("w", "m"))], private=("g",)
    ).specialise({"delta": 0.5})
    assembly(program, dict.fromkeys(program.variables, dtype))
    for equation in [*functions.ULPS, functions.e_power, functions.e_where_number]:
        program = Program([Stage(Equation(equation), ("x",), ("y",))]).specialise({})
        assembly(program, dict.fromkeys(program.variables, dtype))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_totals_compile(dtype):
    assembly(SQUARES.specialise({}), {"g": dtype, "square": torch.float64}, ("square",))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_full_blocks_move_sixteen_bytes_at_a_time(dtype):
    program = specialised_step("Adam")
    types = dict.fromkeys(program.variables, dtype)
    wide = r"(ld|st)\.global\S*\.v(4\.b32|2\.b64)"
    count = gpu.BLOCK // (32 * gpu.WARPS) * dtype.itemsize // 16  # a thread and array
    found = [match[0] for match in re.findall(wide, assembly(program, types))]
    assert (found.count("ld"), found.count("st")) == (4 * count, 3 * count)
    assert not re.findall(wide, assembly(program, types, aligned=False))


def test_division_and_root_are_rounded_correctly():
    program = specialised_step("Adam")
    ptx = assembly(program, dict.fromkeys(program.variables, torch.float32))
    assert "div.rn.f32" in ptx and "sqrt.rn.f32" in ptx
    assert not re.search(r"(div\.full|div\.approx|sqrt\.approx)", ptx)
