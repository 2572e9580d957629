"""GPU kernels compiled down to machine code of one GPU, without having one; run by test_gpu.py."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import gpu_function_cases as functions
import pytest
import torch
from gpu_support import RULE_CASES, TOLERANCE

from ravine import losses
from ravine.engine import gpu, kernel_cache
from ravine.engine.equation import Equation
from ravine.engine.gpu_source import kernel_source
from ravine.engine.lean import NONNEGATIVE, SIGNED, STOCHASTIC_BFLOAT16
from ravine.engine.norm import SQUARES
from ravine.engine.program import Program, Stage
from ravine.losses import mask_overlap, pass_plan, sample_pass
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
    made = SimpleNamespace(
        compiled=lambda *given: given,
        Launch=lambda given, sizes, **_: SimpleNamespace(given=given, sizes=sizes),
    )
    monkeypatch.setattr(pass_plan, "executor", lambda name: made)
    loss = getattr(losses, name)
    tensors = [torch.zeros(3, dtype=kind)] * (2 + len(loss.others) + weighted)
    needs = (True,) * (1 + len(loss.others))
    program = pass_plan.program_of(loss, weighted, "value", needs)
    values = {**loss.hyperparameters, **options, "_scale": 1.0}
    plan = pass_plan.plan_for(
        "gpu", program.specialise(values), loss, tensors, torch.float32, separate=False
    )
    one, types, totals = plan.launch.given
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


@pytest.mark.parametrize(
    ("m", "v", "wide"),
    [
        (STOCHASTIC_BFLOAT16, STOCHASTIC_BFLOAT16, "v4.b32"),
        (SIGNED, NONNEGATIVE, "v2.b32"),
    ],
    ids=["bfloat16", "int8"],
)
def test_lean_state_compiles_and_moves_eight_elements_at_a_time(m, v, wide):
    types = {"w": STOCHASTIC_BFLOAT16, "g": torch.bfloat16, "m": m, "v": v}
    ptx = assembly(specialised_step("AdamW"), types)
    found = re.findall(r"(ld|st)\.global\S*\." + wide.replace(".", r"\."), ptx)
    assert found.count("ld") >= 2 and found.count("st") >= 2
    assert "ld.local" not in ptx and "st.local" not in ptx


# --- losses over rows ----------------------------------------------------------------------------

STORED = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "i16",
    torch.float16: "fp16",
}


def row_kernel(kernel, classes, dtype, **switches):
    """Return a kernel compiled for rows of so many scores, at addresses of 16 bytes."""
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ravine.losses.kernels.cross_entropy_gpu import few_of, tile_for
    from ravine.losses.kernels.row_launch import tile_of

    names, double = kernel.arg_names, dtype is torch.float64
    tile = (tile_for if "FEW" in names else tile_of)(classes, dtype)
    constants = {
        "WEIGHTED": False, "FACTORED": False, "SLOPES": True, "AGAIN": False,
        "NUMBER": tl.float64 if double else tl.float32,
        "ONE": classes <= tile.columns, "ROWS": tile.rows, "COLUMNS": tile.columns, **switches,
    }  # fmt: skip
    if "FEW" in names:
        constants["FEW"] = few_of(classes, dtype)
    number = "*fp64" if double else "*fp32"
    pointers = dict.fromkeys(["scores", "gradient"], f"*{STORED[dtype]}")
    pointers |= dict.fromkeys(["by_class", "factor", "losses"], number)
    pointers |= {
        "target": number if constants.get("SOFT") else "*i64",
        "scale": "*fp64",
        "arrived": "*fp32",
    }
    signature = {**pointers, "rows": "i32", "classes": "i32"}
    if "ignored" in names:
        signature["ignored"] = "i32"
    if classes == 1:  # as Triton does it
        constants["classes"] = 1
    signature |= dict.fromkeys(constants, "constexpr")
    whole = [*pointers, *(["classes"] if classes % 16 == 0 else [])]
    return triton.compile(
        ASTSource(
            kernel,
            signature,
            constants,
            {(names.index(name),): [["tt.divisibility", 16]] for name in whole},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": tile.warps, "enable_fp_fusion": True},
    )


def wide_moves(ptx):
    """Return how often a thread loads and stores 16 bytes at a time."""
    found = [m[0] for m in re.findall(r"(ld|st)\.global\S*\.v(4\.b32|2\.b64)", ptx)]
    return found.count("ld"), found.count("st")


def assert_nothing_is_spilled(compiled, tmp_path):
    assert ".local" not in compiled.asm["ptx"]
    path = tmp_path / "kernel.cubin"
    path.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run(
        [tool, "-res-usage", path], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.findall(r"(STACK|LOCAL):(\d+)", done.stdout) == [("STACK", "0"), ("LOCAL", "0")]


@pytest.mark.parametrize(
    ("classes", "dtype", "switches", "moves"),
    [
        (32768, torch.float32, {}, (8, 4)),  # 16 logits a thread, read twice and written once
        (1024, torch.bfloat16, {"AGAIN": True, "FACTORED": True}, (1, 1)),  # 8, which stay
        (32768, torch.float64, {"EPSILON": 0.1, "SOFT": True, "WEIGHTED": True}, None),
        (10, torch.float16, {}, (2, 2)),  # 16 a thread, wherever rows begin
        (31, torch.bfloat16, {"EPSILON": 0.1, "SOFT": True, "WEIGHTED": True}, (4 + 8, 4)),
        (15, torch.float64, {"FACTORED": True}, (8, 8)),
        (1, torch.float32, {"SLOPES": False}, (0, 0)),
    ],
)
def test_cross_entropy_compiles(classes, dtype, switches, moves, tmp_path):
    from ravine.losses.kernels.cross_entropy_triton import kernel

    given = {"EPSILON": 0.0, "SOFT": False, **switches}
    compiled = row_kernel(kernel, classes, dtype, **given)
    ptx = compiled.asm["ptx"]
    assert moves is None or wide_moves(ptx) == moves
    assert not re.search(r"div\.full|div\.approx", ptx)
    assert_nothing_is_spilled(compiled, tmp_path)


@pytest.mark.parametrize(
    ("classes", "dtype", "switches", "moves"),
    [
        (32768, torch.float32, {"P": 0}, (4, 4)),  # 16 scores a thread, read once
        (32768, torch.float32, {"P": 1}, (4, 4 + 4)),  # the second time where a row is NaN
        (32768, torch.float64, {"P": 2, "WEIGHTED": True, "FACTORED": True}, (8, 8 + 8)),
        (1024, torch.bfloat16, {"P": 2, "AGAIN": True, "FACTORED": True}, (1, 1)),  # 8
        (10, torch.float16, {"P": 0, "SLOPES": False}, (0, 0)),
    ],
)
def test_hinge_compiles(classes, dtype, switches, moves, tmp_path):
    from ravine.losses.kernels.hinge_triton import kernel

    compiled = row_kernel(kernel, classes, dtype, MARGIN=1.0, **switches)
    assert wide_moves(compiled.asm["ptx"]) == moves
    assert_nothing_is_spilled(compiled, tmp_path)


@pytest.mark.parametrize(
    ("name", "slopes", "switches", "moves"),
    [
        ("look", None, {}, (2, 0)),  # 8 logits a thread
        ("turn", "i16", {}, (2, 1)),
        ("look", None, {"EPSILON": 0.1, "SOFT": True, "WEIGHTED": True, "BIASED": True}, None),
        ("turn", "fp16", {"EPSILON": 0.1, "WEIGHTED": True, "CAPPED": True, "BIASED": True}, None),
    ],
)
def test_kernels_of_the_linear_head_compile(name, slopes, switches, moves):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ravine.losses.kernels import linear_classes_triton
    from ravine.losses.kernels.row_launch import tile_of

    kernel, tile = getattr(linear_classes_triton, name), tile_of(768, torch.float32)
    constants = dict.fromkeys(["SOFT", "WEIGHTED", "BIASED", "CAPPED"], False)
    constants |= {"EPSILON": 0.0, "ROWS": tile.rows, "COLUMNS": tile.columns, **switches}
    wide = ["rests", "ties_of", "totals", "inners"] if name == "look" else []
    types = dict.fromkeys(wide, "*fp64") | dict.fromkeys(constants, "constexpr")
    types |= {
        "slopes": f"*{slopes}",
        "cap": "fp32",
        "target": "*fp32" if constants["SOFT"] else "*i64",
    }
    numbers = ["rows", "width", "stride", "target_stride", "slopes_stride", "start", "classes"]
    types |= dict.fromkeys(numbers, "i32")
    names = kernel.arg_names
    signature = {n: types.get(n, "*fp32") for n in names}
    whole = [n for n in names if signature[n][0] == "*" or n.endswith(("width", "stride"))]
    compiled = triton.compile(
        ASTSource(
            kernel,
            signature,
            constants,
            {(names.index(n),): [["tt.divisibility", 16]] for n in whole},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": tile.warps, "enable_fp_fusion": True},
    )
    ptx = compiled.asm["ptx"]
    found = [m[0] for m in re.findall(r"(ld|st)\.global\S*\.v(4\.b32|2\.b64)", ptx)]
    if moves is not None:
        assert (found.count("ld"), found.count("st")) == moves
    assert not re.search(r"\.local|div\.full|div\.approx", ptx)
    if name == "turn":  # a warp writes where another has read
        before, _, after = ptx.rpartition("bar.sync")
        assert "ld.global" in before and "st.global" not in before and "ld.global" not in after


def test_the_look_at_targets_compiles():
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ravine.losses.kernels.target_scan_gpu import BLOCK, kernel

    signature = {"target": "*i64", "factor": "*fp32", "class_weight": "*fp32", "found": "*fp64"}
    signature |= dict.fromkeys(["rows", "share", "classes", "ignored"], "i32")
    constants = {"FACTORED": True, "WEIGHTED": True, "BLOCK": BLOCK}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants)
    triton.compile(
        source,
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": 8, "enable_fp_fusion": True},
    )


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_what_multiplies_slopes_moves_sixteen_bytes_at_a_time(kind):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ravine.losses.kernels.times_gpu import BLOCK, kernel

    signature = {"values": f"*{kind}", "number": "*fp32", "count": "i32", "share": "i32"}
    source = ASTSource(
        kernel,
        {**signature, "BLOCK": "constexpr"},
        {"BLOCK": BLOCK},
        {(0,): [["tt.divisibility", 16]]},
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "enable_fp_fusion": True}
    )
    found = re.findall(r"(ld|st)\.global\S*\.v(?:4\.b32|2\.b64)", compiled.asm["ptx"])
    each = BLOCK * (8 if kind == "fp64" else 4) // 128 // 16
    assert (found.count("ld"), found.count("st")) == (each, each)


# --- sums over places ----------------------------------------------------------------------------


def overlap_kernel(name, classes, dtype, soft=False, last=False, counted=False):
    """Return a kernel of class overlaps compiled for 65536 places at addresses of 16 bytes."""
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ravine.losses.kernels import class_overlap_triton
    from ravine.losses.kernels.class_overlap_gpu import tile_of

    kernel = getattr(class_overlap_triton, name)
    tile, double = tile_of(classes, dtype), dtype is torch.float64
    number = "*fp64" if double else "*fp32"
    stored = f"*{STORED[dtype]}"
    kinds = {
        "scores": stored, "target": number if soft else "*i64", "counts": "*u8", "found": "*fp64",
        "arrived": number, "gradient": stored,
    }  # fmt: skip
    constants = {
        "SOFT": soft, "LAST": last, "COUNTED": counted, "NUMBER": tl.float64 if double else tl.float32,
        "CLASSES": tile.classes, "PLACES": tile.places,
    }  # fmt: skip
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    divisible = ["places", *(["classes"] if classes % 16 == 0 else [])]
    whole = [n for n in names if n in kinds or n in divisible]
    return triton.compile(
        ASTSource(
            kernel,
            signature,
            constants,
            {(names.index(n),): [["tt.divisibility", 16]] for n in whole},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": tile.warps, "enable_fp_fusion": True},
    )


@pytest.mark.parametrize(
    ("classes", "dtype", "switches", "loads", "stores"),
    [
        (19, torch.float32, {}, (4 + 2, 4 + 2), 4),  # 16 logits a thread, and 4 classes of targets
        (1023, torch.float32, {}, (4 + 2, 4 + 2), 4),
        (256, torch.float64, {"soft": True, "counted": True}, (4 + 4, 4 + 4), 4),
        (3, torch.bfloat16, {"counted": True}, (2 + 2, 2 + 2), 2),
        (32, torch.float16, {"last": True}, (2, 2 + 4), 2),  # on the way back what arrives, too
    ],
)
def test_overlaps_compile(classes, dtype, switches, loads, stores, tmp_path):
    for name, wide in (("sums", (loads[0], 0)), ("slopes", (loads[1], stores))):
        compiled = overlap_kernel(name, classes, dtype, **switches)
        assert wide_moves(compiled.asm["ptx"]) == wide, name
        assert not re.search(r"div\.full|div\.approx", compiled.asm["ptx"])
        assert_nothing_is_spilled(compiled, tmp_path)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_masks_compile(kind, monkeypatch):
    made = []
    compiled = SimpleNamespace(compiled=lambda *given: made.append(given), Launch=_Made)
    monkeypatch.setattr(sample_pass, "executor", lambda name: compiled)
    x, y = torch.zeros(2, 2, 300, dtype=kind)
    for each in (mask_overlap._sums, mask_overlap._slope):
        each._made((x, y), 2, 300)
    for program, types, totals in made:
        assert "ld.global" in assembly(program, types, totals, block=NARROW)
    assert len(made) == 2


class _Made:
    """In the place of a launch."""

    def __init__(self, *given, **options):
        pass

    def set_rows(self, rows):
        pass


# --- distances -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "width", "pairs", "moves"),
    [
        (torch.float32, 512, 2, (3 * 4, 3 * 4)),  # 16 numbers a thread of three matrices
        (torch.bfloat16, 128, 3, (3 * 2, 3 * 2)),
        (torch.float16, 4096, 1, (2 * 2, 2 * 2)),
    ],
)
def test_distances_compile(dtype, width, pairs, moves, tmp_path):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ravine.losses.kernels import distances_gpu

    rows, columns = distances_gpu.tile_of(width)
    stored = f"*{STORED[dtype]}"
    kinds = dict.fromkeys(["a", "b", "c", "of_a", "of_b", "of_c"], stored)
    kinds |= {"found": "*fp64", "times": "*fp64", "rows": "i32", "width": "i32"}
    third = pairs > 1
    constants = {"EPS": 1e-6, "PAIRS": pairs, "ROWS": rows, "COLUMNS": columns}
    for kernel, own, wide in [
        (distances_gpu.distances, {}, (moves[0], 0)),
        (distances_gpu.slopes, {"A": True, "B": True, "C": third}, moves),
    ]:
        names = kernel.arg_names
        given = constants | own
        whole = [name for name in names if name in kinds and name != "rows"]
        compiled = triton.compile(
            ASTSource(
                kernel,
                {name: kinds.get(name, "constexpr") for name in names},
                given,
                {(names.index(name),): [["tt.divisibility", 16]] for name in whole},
            ),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": 4, "enable_fp_fusion": True},
        )
        assert wide_moves(compiled.asm["ptx"]) == wide
        assert_nothing_is_spilled(compiled, tmp_path)
