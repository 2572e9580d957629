"""Lean state and weights rounded at random on the GPU executor, against the CPU's compiled kernels.

The random bits, the scales and the codes are the same, so what is held is compared bit for bit. Arithmetic
differs where LLVM fuses a product with a sum, which Triton's interpreter does not: a number one unit off in
float32 may then, once in 2^16 or 2^20, be rounded to the other side. With powers of two for lr and momentum
every product is exact, and there is nothing of that.

Run by test_gpu.py in a process of its own; under TRITON_INTERPRET=1 the tensors are on the CPU.
"""

from __future__ import annotations

import math

import pytest
import torch
from gpu_support import DEVICE, SIZES
from lean_support import holder

import ravine
import ravine.optim
from ravine.engine import gpu, lean
from ravine.engine.program import Program, Stage
from ravine.optim import lean_state, matrix_plan, plan

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
FORMATS = ["bfloat16", "int8"]


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    """Hold small tensors as codes too."""
    monkeypatch.setattr(lean_state, "SMALLEST", 0)


@pytest.fixture
def gpu_and_cpu(monkeypatch):
    """Return what runs something on the GPU executor and then on the CPU's."""
    cpu = plan.executor("cpu")

    def both(run):
        found = []
        for module, device in ((gpu, DEVICE), (cpu, "cpu")):
            for user in (plan, matrix_plan):
                monkeypatch.setattr(user, "executor", lambda name, module=module: module)
            found.append(run(device))
        return found

    return both


def held(optimizer):
    """Return what is held of each weight, by name, on the CPU."""
    return [
        {"w": w.detach().cpu()}
        | {k: x.cpu() for k, x in optimizer.state[w].items() if torch.is_tensor(x)}
        for group in optimizer.param_groups
        for w in group["params"]
    ]


def trained(make, dtype, shapes=SIZES, bad=None, steps=3):
    """Return a function that trains on a device and returns what is held then."""

    def run(device):
        generator = torch.Generator().manual_seed(3)
        draw = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
        weights = [torch.nn.Parameter(x.to(device, dtype)) for x in draw]
        optimizer = make(weights)
        for step in range(steps):
            for k, w in enumerate(weights):
                g = torch.randn(w.shape, generator=generator).bfloat16().to(device, dtype)
                if bad is not None and step == 0:
                    g[300] = bad
                w.grad = None if (step, k) in ((2, 0), (1, 3)) else g
            optimizer.step()
        assert "reference" not in optimizer.explain()
        return held(optimizer)

    return run


def assert_held_alike(ours, theirs, may_differ=0.0):
    """Compare what is rounded bit by bit, but for a share that may differ, and the rest nearly."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, x in one.items():
            y = other[name]
            if may_differ and x.dtype in (torch.float32, torch.float64) and "scale" not in name:
                torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6, equal_nan=True)
                continue
            bits = (
                (x.view(torch.int16), y.view(torch.int16)) if x.dtype is torch.bfloat16 else (x, y)
            )
            differ = (bits[0] != bits[1]) & ~(x.isnan() & y.isnan())
            if name.endswith("_codes"):  # those of a block of NaN say nothing
                scales = one[name.replace("_codes", "_scales")]
                differ &= ~scales.isnan().repeat_interleave(lean.BLOCK)[: x.numel()].view_as(x)
            assert differ.sum() <= may_differ * x.numel(), name


# --- the formats alone ---------------------------------------------------------------------------


@ravine.update_rule(moments={"m": "signed", "v": "nonnegative"})
def unchecked(w, g, m, v, *, lr=0.0):
    """Hold the gradient as both moments, also where it is negative."""
    return w - lr * g, g, g


def hard_values():
    """Blocks of every kind, the last one not whole."""
    generator = torch.Generator().manual_seed(11)
    blocks = torch.rand(9, lean.BLOCK, generator=generator)
    blocks[0] *= 10.0 ** torch.empty(lean.BLOCK).uniform_(-20, 15, generator=generator)
    blocks[1, 77] = -1e-30
    blocks[3, 255] = math.inf
    blocks[4] = 0.0
    blocks[4, ::2] = -0.0
    blocks[5] *= 1e-39
    blocks[6, 1:] *= 1e-12
    blocks[7] = 1.75 * 2.0 ** torch.arange(lean.BLOCK).sub(128).clamp(-126, 126)
    values = blocks.flatten()[:-100]
    payload = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32)  # rounding would carry out of it
    values[2 * lean.BLOCK : 2 * lean.BLOCK + 2] = payload.view(torch.float32)
    return values


@pytest.mark.parametrize("state_dtype", FORMATS)
@pytest.mark.parametrize("rule", [holder, unchecked])
def test_hard_values_are_held_with_the_same_bits(rule, state_dtype, gpu_and_cpu):
    def run(device):
        w = torch.nn.Parameter(torch.zeros(len(hard_values()), device=device))
        optimizer = rule([w], state_dtype=state_dtype)
        for factor in (1.0, 0.3, 1.5):  # an old scale serves, or does not
            w.grad = hard_values().mul(factor).to(device)
            optimizer.step()
        return held(optimizer)

    ours, theirs = gpu_and_cpu(run)
    assert_held_alike(ours, theirs)
    bad = [name for name, x in ours[0].items() if name.startswith("v") and x.isnan().any()]
    assert bad == ["v" if state_dtype == "bfloat16" else "v_scales"]


@pytest.mark.parametrize("state_dtype", FORMATS)
def test_one_number_for_a_block_and_what_lies_behind_its_end(state_dtype, gpu_and_cpu):
    """Behind the end v would be 1, far above the others, and must not count for their scale."""

    @ravine.update_rule(moments={"m": "signed", "v": "nonnegative"})
    def constant(w, g, m, v, key, *, lr=0.0, start=0.3):
        return w - lr * (m + v), start, 1 / (1 + 1000 * (1 + g * g) * g * g), key + 1

    run = trained(lambda weights: constant(weights, state_dtype=state_dtype), torch.float32)
    ours, theirs = gpu_and_cpu(run)
    assert_held_alike(ours, theirs, may_differ=1e-3)
    if state_dtype == "bfloat16":
        assert len(ours[2]["m"].unique()) == 2


# --- whole steps ---------------------------------------------------------------------------------

EXACT = {"lr": 2.0**-4, "momentum": 0.5, "weight_decay": 2.0**-3}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("state_dtype", FORMATS)
def test_exact_steps_of_sgd_bit_by_bit(state_dtype, dtype, gpu_and_cpu):
    def make(weights):
        options = {**EXACT, "stochastic_rounding": True, "state_dtype": state_dtype}
        return ravine.optim.SGD(weights, **options)

    assert_held_alike(*gpu_and_cpu(trained(make, dtype)))


OPTIONS = {"clip_norm": 1.0, "average": 0.75, "stochastic_rounding": True}


@pytest.mark.parametrize("state_dtype", FORMATS)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("AdamW", torch.bfloat16),
        ("AdamW", torch.float64),
        ("SGD", torch.bfloat16),
        ("AdEMAMix", torch.bfloat16),
        ("LAMB", torch.float32),
    ],
    ids=str,
)
def test_steps_with_options(name, dtype, state_dtype, gpu_and_cpu):
    """Of what is rounded one in a thousand may differ; measured: none of 100,000."""
    options = {**OPTIONS, "state_dtype": state_dtype}
    if name == "SGD":
        options |= {"lr": 0.1, "momentum": 0.9}
    run = trained(lambda weights: getattr(ravine.optim, name)(weights, **options), dtype)
    assert_held_alike(*gpu_and_cpu(run), may_differ=1e-3)


@pytest.mark.parametrize("state_dtype", FORMATS)
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_gradient_that_is_not_finite_shows_where_it_does_on_the_cpu(
    bad, state_dtype, gpu_and_cpu
):
    def make(weights):
        return ravine.optim.AdamW(weights, state_dtype=state_dtype, stochastic_rounding=True)

    ours, theirs = gpu_and_cpu(trained(make, torch.bfloat16, [1500], bad))
    assert_held_alike(ours, theirs, may_differ=1e-3)
    spoilt = ours[0]["w"].isnan()
    assert spoilt[300] and spoilt.sum() == (1 if state_dtype == "bfloat16" else lean.BLOCK)


@pytest.mark.parametrize("state_dtype", FORMATS)
def test_a_matrix_rule(state_dtype, gpu_and_cpu):
    def make(weights):
        return ravine.optim.Muon(weights, state_dtype=state_dtype, stochastic_rounding=True)

    run = trained(make, torch.bfloat16, [(40, 30), (7,), (40, 30)], steps=2)
    ours, theirs = gpu_and_cpu(run)
    for one, other in zip(ours, theirs, strict=True):  # a GPU multiplies matrices in its own order
        torch.testing.assert_close(one.pop("w"), other.pop("w"), rtol=2**-6, atol=2**-8)
    assert_held_alike(ours, theirs, may_differ=1e-3)


# --- tables --------------------------------------------------------------------------------------


def test_scales_and_random_bits_lie_by_64_bit_offsets():
    """2^32 elements further on the random bits begin anew: the same codes as at the beginning."""
    types = {"w": torch.float32, "g": torch.float32, "m": lean.SIGNED, "v": lean.NONNEGATIVE}
    rule = holder.rule
    stage = Stage(rule.equation, ("w", "g", *rule.states), ("w", *rule.states))
    program = Program([stage], private=("g",)).specialise({"lr": 0.0})
    kernel = gpu.compiled(program, types).function
    columns = lean.layout(program.variables, types)
    ran = []
    for before in (0, 2**33):
        made = {
            name: torch.zeros(300, dtype=kind if isinstance(kind, torch.dtype) else kind.dtype)
            for name, kind in types.items()
        }
        made["g"] = torch.rand(300, generator=torch.Generator().manual_seed(1))
        made |= {lean.scales_column(name): torch.ones(2) for name in ("m", "v")}
        made = {name: tensor.to(DEVICE) for name, tensor in made.items()}
        passed = {
            name: before // lean.BLOCK * 4 if "scales" in name else before * x.itemsize
            for name, x in made.items()
        }
        key = lean.step_keys(torch.tensor([5]).numpy().astype("uint64"), torch.ones(1).numpy())[0]
        record = [
            key if name == lean.KEY else made[name].data_ptr() - passed[name] for name in columns
        ]
        record += [0, -before // gpu.BLOCK, before + 300]
        scalars = torch.zeros(2, dtype=torch.float64, device=DEVICE)
        owners = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        records = torch.tensor(record, dtype=torch.int64, device=DEVICE)
        kernel[(1,)](owners, records, scalars, scalars, ALIGNED=False, BLOCK=gpu.BLOCK)
        ran.append([{name: tensor.cpu() for name, tensor in made.items()}])
    assert_held_alike(*ran)
    bits = lean.random_bits(300, key, 0, lean.SHIFT)
    codes, scales = lean.encode(ran[0][0]["g"], lean.SIGNED, bits, torch.ones(2))
    assert torch.equal(ran[1][0]["m"], codes)
    assert torch.equal(ran[1][0][lean.scales_column("m")], scales)
