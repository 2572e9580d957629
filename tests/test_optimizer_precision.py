"""float32 and half precision against float64 and float32 runs; threads and chunks bit for bit."""

from __future__ import annotations

import pytest
import torch

import ravine.optim
from ravine.engine import cpu

CASES = [
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"lr": 1e-3, "momentum": 0.9}),
    ("Adam", {"lr": 1e-3}),
    ("Adam", {"lr": 1e-3, "clip_norm": 3.0, "l2": 0.01, "average": 0.9}),
]
BIG = cpu.PARALLEL_FROM + cpu.SMALLEST_CHUNK // 2 + 3


@pytest.fixture
def threads():
    """Set the number of threads; put it back afterwards."""
    count = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(count)


def run(rule, options, shapes, dtype=torch.float32, steps=10, backend="cpu", split=None):
    generator = torch.Generator().manual_seed(3)
    ws = [
        torch.nn.Parameter(torch.randn(s, generator=generator).to(torch.bfloat16).to(dtype))
        for s in shapes
    ]
    optimizer = getattr(ravine.optim, rule)(ws, backend=backend, **options)
    for _ in range(steps):
        for w in ws:
            w.grad = torch.randn(w.shape, generator=generator).to(torch.bfloat16).to(dtype)
        optimizer.step()
    return [w.detach() for w in ws], optimizer


def ulps(a, b):
    """Distance in units of the last place of a float32, of 1 for numbers below 1."""
    spacing = torch.finfo(torch.float32).eps * b.abs().clamp_min(1.0).double()
    return ((a.double() - b.double()).abs() / spacing).max().item()


@pytest.mark.parametrize(("rule", "options"), CASES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_float32_is_within_a_few_ulp_of_float64(rule, options, backend):
    shapes = [(64, 33), (), (129,)]
    single, _ = run(rule, options, shapes, backend=backend)
    double, _ = run(rule, options, shapes, torch.float64)
    assert max(ulps(a, b) for a, b in zip(single, double, strict=True)) < 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rule", "options"), CASES[2:])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_half_precision_is_computed_in_float32_and_rounded_once(rule, options, dtype, backend):
    shapes = [(64, 33), (), (129,)]
    ours, optimizer = run(rule, options, shapes, dtype, steps=1, backend=backend)
    theirs, _ = run(rule, options, shapes, torch.float32, steps=1)
    for a, b in zip(ours, theirs, strict=True):
        wrong = a != b.to(dtype)  # ties, and the few ulp between the executors
        assert wrong.float().mean() < 0.01
        torch.testing.assert_close(a.float(), b, rtol=torch.finfo(dtype).eps, atol=1e-6)
    for state in optimizer.state.values():
        assert {t.dtype for k, t in state.items() if k != "step"} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_over_many_steps_equals_a_float32_transcription(dtype):
    generator = torch.Generator().manual_seed(3)
    w = torch.nn.Parameter(torch.randn(500, generator=generator).to(dtype))
    optimizer = ravine.optim.Momentum([w], lr=0.01)
    wanted, v = w.detach().clone(), torch.zeros(500)
    for _ in range(30):
        g = torch.randn(500, generator=generator).to(dtype)
        w.grad = g
        optimizer.step()
        v = 0.9 * v + (1 - 0.9) * g.float()
        wanted = (wanted.float() - 0.01 * v).to(dtype)
        # A tie may fall either way; then both go on from the same weight.
        assert (w.detach() != wanted).float().mean() < 0.01
        torch.testing.assert_close(w.detach().float(), wanted.float(), rtol=2**-7, atol=1e-6)
        wanted = w.detach().clone()


@pytest.mark.parametrize(("rule", "options"), CASES[2:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parallel_equals_serial_bit_for_bit(rule, options, dtype, threads):
    def both(count, parallel_from):
        threads(count)
        kept, cpu.PARALLEL_FROM = cpu.PARALLEL_FROM, parallel_from
        try:
            return run(
                rule, options, [(BIG,), (7, 5), (cpu.SMALLEST_CHUNK + 1,), ()], dtype, steps=3
            )
        finally:
            cpu.PARALLEL_FROM = kept

    two, a = both(2, cpu.PARALLEL_FROM)
    one, b = both(1, cpu.PARALLEL_FROM)
    serial, c = both(2, 10**12)
    for x, y, z in zip(two, one, serial, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(x, z)
    for p, q in zip(a.state.values(), c.state.values(), strict=True):
        assert all(torch.equal(p[name], q[name]) for name in p)
    assert a.gradient_norm() == b.gradient_norm()


def test_the_same_run_gives_the_same_bits():
    first, _ = run("Adam", CASES[3][1], [(BIG,), (7, 5)])
    second, _ = run("Adam", CASES[3][1], [(BIG,), (7, 5)])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_large_weights_equal_torch():
    ours = torch.nn.Parameter(torch.randn(BIG, dtype=torch.float64))
    theirs = torch.nn.Parameter(ours.detach().clone())
    a = ravine.optim.Adam([ours], lr=0.01, clip_norm=1.0)
    b = torch.optim.Adam([theirs], lr=0.01)
    for _ in range(3):
        ours.grad = torch.randn(BIG, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        assert a.gradient_norm() == pytest.approx(float(theirs.grad.norm()), rel=1e-13)
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_the_norm_of_half_precision_gradients_does_not_overflow():
    w = torch.nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    w.grad = torch.full_like(w, 6e4)
    optimizer = ravine.optim.SGD([w], lr=1.0, clip_norm=1.0)
    optimizer.step()
    assert optimizer.gradient_norm() == pytest.approx(float(w.grad[0]) * 1000**0.5, rel=1e-12)
    torch.testing.assert_close(w.float(), torch.full((1000,), -(1000**-0.5)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_gradient_of_another_type_than_its_weight(backend):
    w = torch.nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
    if not hasattr(w, "grad_dtype"):
        pytest.skip("this PyTorch keeps gradients in the type of the weight")
    w.grad_dtype = None
    optimizer = ravine.optim.SGD([w], lr=1.0, backend=backend, clip_norm=100.0)
    for _ in range(2):
        w.grad = torch.arange(5.0)
        optimizer.step()
    assert w.tolist() == [0, -2, -4, -6, -8]


def test_complex_weights_equal_torch():
    for rule, options in (("Adam", {"lr": 0.01, "amsgrad": True}), ("SGD", CASES[0][1])):
        ours = torch.nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
        theirs = torch.nn.Parameter(ours.detach().clone())
        a = getattr(ravine.optim, rule)([ours], clip_norm=2.0, **options)
        b = getattr(torch.optim, rule)([theirs], **options)
        for _ in range(20):
            ours.grad = torch.randn(4, 3, dtype=torch.complex128)
            theirs.grad = ours.grad.clone()
            torch.nn.utils.clip_grad_norm_([theirs], 2.0)
            a.step()
            b.step()
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
        assert "no kernels for torch.complex128" in a.explain()
