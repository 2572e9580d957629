"""GPU kernels compiled down to machine code of one GPU, without having one; run by test_gpu.py."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import gpu_function_cases as functions
import pytest
import torch
from gpu_support import RULE_CASES, TOLERANCE

from ravine import losses
from ravine.engine import gpu, kernel_cache
from ravine.engine.equation import Equation
from ravine.engine.gpu_source import kernel_source
from ravine.engine.norm import SQUARES
from ravine.engine.program import Program, Stage
from ravine.losses import pass_plan
from ravine.optim.options import step_program
from ravine.rules import RULES

triton = pytest.importorskip("triton")

SIGNATURE = {"owners": "*i32", "records": "*i64", "scalars": "*fp64", "sums": "*fp64"}
SIGNATURE |= {"ALIGNED": "constexpr", "BLOCK": "constexpr"}
EVERYTHING = {
    "clip_norm": 1.0, "clip_value": 0.5, "maximize": True, "l2": 0.1, "l1": 0.1,
    "weight_decay": 0.1, "decay": "decoupled", "average": 0.9,
}  # fmt: skip


NARROW = 32 * gpu.WARPS
"""A block of one element a thread: the instructions of a whole block once in place of eight times, which
the compilers of LLVM and NVIDIA take two to six times as long for."""


def assembly(program, types, totals=(), aligned=True, block=gpu.BLOCK):
    """Return what a kernel becomes for compute capability 9.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = kernel_source(program, types, totals)
    kernel = kernel_cache.load(source, "gpu").kernel
    compiled = triton.compile(
        ASTSource(
            kernel,
            SIGNATURE,
            {"ALIGNED": aligned, "BLOCK": block},
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
# in all. Both halves are computed in float32: the variables of a kernel have them in turns. Whole blocks
# of each rule are compiled with every option at once, and of every type with Adam's equation.
HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    ("name", "options", "dtypes"),
    [
        (name, options, dtypes)
        for name, options in RULE_CASES
        for dtypes in ((torch.float32,), (torch.float64,), HALVES)
        if dtypes == (torch.float32,) or not options
    ],
)
def test_rules_compile(name, options, dtypes):
    program = specialised_step(name, **options)
    for one in (*program.sweeps, program):
        types = dict(zip(one.variables, itertools.cycle(dtypes), strict=False))
        assert "sm_90" in assembly(one, types, block=NARROW)


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
    assembly(program, dict.fromkeys(program.variables, dtype), block=NARROW)
    others = functions.e_power, functions.e_where_number, functions.e_log1p_of_fraction
    alone = [*functions.ULPS, *others]
    stages = [Stage(Equation(one), ("x",), (f"y{k}",)) for k, one in enumerate(alone)]
    program = Program(stages).specialise({})
    assert len(program.variables) == 1 + len(alone)
    assembly(program, dict.fromkeys(program.variables, dtype), block=NARROW)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_totals_compile(dtype):
    assembly(SQUARES.specialise({}), {"g": dtype, "square": torch.float64}, ("square",))


@pytest.mark.parametrize(
    ("name", "kind", "options", "weighted"),
    [
        ("binary_cross_entropy", torch.float32, {}, True),
        ("log_cosh", torch.bfloat16, {}, False),
        ("focal", torch.float16, {}, False),
        ("tweedie", torch.float32, {"power": 1.3}, False),
        ("gaussian_nll", torch.bfloat16, {"full": True}, True),
    ],
)
def test_losses_compile(name, kind, options, weighted, monkeypatch):
    """As a reduced loss is: its value's sum, slopes in the input's type, the count of bad targets."""
    made = SimpleNamespace(compiled=lambda *given: given, Launch=lambda given, *_, **__: given)
    monkeypatch.setattr(pass_plan, "executor", lambda name: made)
    loss = getattr(losses, name)
    tensors = [torch.zeros(3, dtype=kind)] * (2 + len(loss.others) + weighted)
    needs = (True,) * (1 + len(loss.others))
    program = pass_plan.program_of(loss, weighted, "value", needs)
    values = {**loss.hyperparameters, **options, "_scale": 1.0}
    plan = pass_plan.plan_for(
        "gpu", program.specialise(values), loss, tensors, torch.float32, separate=False
    )
    one, types, totals = plan.launch
    assert "value" in totals and ("arithmetic" in types) == loss.wide
    assert set(totals) - {"value"} == {f"outside_{name}" for name in plan_domains(loss)}
    assert "sm_90" in assembly(one, types, totals, block=NARROW)


def plan_domains(loss):
    names = dict(zip(loss.others, pass_plan.names_of(loss).tensors[2:], strict=True))
    return [names.get(name, name) for name in loss.domains]


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
