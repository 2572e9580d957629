"""Losses over rows on the GPU: what is left out, ways back, the linear head; run by test_gpu.py."""

from __future__ import annotations

import pytest
import torch
from gpu_row_support import (
    INF,
    NAN,
    assert_near,
    classes_of,
    cross_entropy_gpu,
    exact,
    numbers,
    on_the_gpu,
    value_and_gradient,
)
from gpu_support import DEVICE

from ravine.errors import TargetError
from ravine.losses import categorical_focal, cross_entropy, linear_cross_entropy
from ravine.losses.kernels import row_launch
from ravine.losses.row_formula import Arrived

assert on_the_gpu
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")


@pytest.mark.parametrize("columns", [4, 2], ids=["one tile", "two tiles"])
def test_rows_left_out_have_no_influence_whatever_they_hold(columns, monkeypatch):
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    x, target = numbers(5, 4), classes_of(5, 4)
    want = exact(x[[0, 3]], target[[0, 3]])
    x[1], x[2], x[4] = NAN, INF, -INF
    target[1] = target[4] = -100
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], device=DEVICE)
    got = value_and_gradient(x, target, weight=weight)
    assert_near(got[0], want[0], torch.float32)
    assert_near(got[1][[0, 3]], want[1], torch.float32)
    assert not got[1][[1, 2, 4]].any()
    nothing = value_and_gradient(x, torch.full_like(target, -100))
    assert nothing[0] == 0 and not nothing[1].any()


def test_targets_out_of_range(on_the_gpu):
    x, target = numbers(3, 4), torch.tensor([0, 4, 1], device=DEVICE)
    with pytest.raises(TargetError, match=r"row 1 of 3"):
        cross_entropy(x, target)
    assert not on_the_gpu.launches
    losses, gradient = value_and_gradient(x, target, reduction="none", check="off")
    assert losses.isnan().tolist() == [False, True, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_checks_the_host_reads_nothing(reduction, monkeypatch):
    x, target = numbers(5, 4), classes_of(5, 4)
    target[1] = -100
    leaf = x.clone().requires_grad_()
    arriving = torch.tensor(2.5, device=DEVICE)

    def refuse(tensor, *_):
        raise AssertionError("the host would wait for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
            patch.setattr(torch.Tensor, name, refuse)
        value = cross_entropy(leaf, target, reduction=reduction, check="off")
        (gradient,) = torch.autograd.grad(value, leaf, arriving)
    times = 1 if reduction == "mean" else 4
    want = exact(x, target, upstream=2.5 * times)
    assert_near(value, want[0] * times, torch.float32)
    assert_near(gradient, want[1], torch.float32)


def test_many_targets_are_looked_at_by_several_programs(monkeypatch):
    from ravine.losses.kernels import target_scan_gpu

    monkeypatch.setattr(target_scan_gpu, "BLOCK", 64)
    monkeypatch.setattr(target_scan_gpu, "PROGRAMS", 3)
    target = classes_of(500, 10)
    target[[0, 70, 499]] = 3
    weight, of_class = numbers(500, seed=3).abs(), numbers(10, seed=4).abs()
    kept = target != 3
    got = target_scan_gpu.scan(target, 10, 3, weight, of_class)
    want = (weight.double() * of_class.double()[target])[kept].sum()
    torch.testing.assert_close(got[1], want, rtol=1e-14, atol=0)
    assert got[0] == 0
    assert target_scan_gpu.scan(target, 10, 3, None, None).tolist() == [0, int(kept.sum())]
    target[[1, 200, 498]] = torch.tensor([-1, 10, 2**40], device=DEVICE)
    assert target_scan_gpu.scan(target, 10, 3, weight, None)[0] == 3
    cross_entropy(numbers(1, 2), classes_of(1, 2))


def test_an_empty_batch(on_the_gpu):
    x, target = numbers(0, 4), classes_of(0, 4)
    value, gradient = value_and_gradient(x, target, reduction="sum")
    assert value == 0 and gradient.shape == (0, 4)
    assert cross_entropy(numbers(1, 4), classes_of(1, 4), reduction="none").shape == (1,)


def test_ways_back(on_the_gpu):
    """1 arrives and nothing is computed anew; else all factors come before the rounding."""
    x, target = numbers(4, 50, dtype=torch.float16), classes_of(4, 50)
    x[0] = 0
    x[0, int(target[0])] = 14  # slopes of 8e-7 / 4: float16 has two bits of them
    x.requires_grad_()
    loss = cross_entropy(x, target)
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert_near(first, exact(x, target)[1], torch.float16)
    for upstream in (65536.0, 1.0):  # the second one without what was kept
        given = torch.tensor(upstream, device=DEVICE)
        (again,) = torch.autograd.grad(loss, x, given, retain_graph=True)
        assert_near(again, exact(x, target, upstream=upstream)[1], torch.float16)
    _, scaled = value_and_gradient(x, target, upstream=65536.0)
    assert_near(scaled, exact(x, target, upstream=65536.0)[1], torch.float16)

    kept = torch.full((4, 50), 7.0, device=DEVICE)
    one = Arrived(
        torch.tensor(0.5, dtype=torch.float64, device=DEVICE), torch.ones((), device=DEVICE)
    )
    cross_entropy_gpu.rows_loss_and_gradient(x.detach().float(), target, scale=one, gradient=kept)
    assert (kept == 7).all()


def test_each_row_has_its_own_way_back_and_a_second_derivative():
    x, target = numbers(3, 5, dtype=torch.float64), classes_of(3, 5)
    arriving = numbers(3, seed=8, dtype=torch.float64)
    for create_graph in (False, True):
        leaf = x.clone().requires_grad_()
        losses = cross_entropy(leaf, target, reduction="none")
        (got,) = torch.autograd.grad(losses, leaf, arriving, create_graph=create_graph)
        other = x.clone().requires_grad_()
        plain = torch.nn.functional.cross_entropy(other, target, reduction="none")
        (want,) = torch.autograd.grad(plain, other, arriving, create_graph=True)
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)
    second = torch.autograd.grad(got.square().sum(), leaf)[0]
    expected = torch.autograd.grad(want.square().sum(), other)[0]
    torch.testing.assert_close(second, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("columns", [128, 32], ids=["one tile", "tiles"])
def test_the_gradient_may_lie_where_the_logits_do(columns, monkeypatch):
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    for target in (classes_of(3, 100), numbers(3, 100).softmax(1)):
        x = numbers(3, 100)
        apart = torch.empty_like(x)
        run = cross_entropy_gpu.rows_loss_and_gradient
        losses = run(x, target, scale=0.5, gradient=apart)
        assert torch.equal(run(x, target, scale=0.5, gradient=x), losses)
        assert torch.equal(x, apart)


def test_a_function_of_cross_entropy_runs_through_the_kernel(on_the_gpu):
    x, target = numbers(5, 7), classes_of(5, 7)
    got = value_and_gradient(x, target, upstream=2.0, loss=categorical_focal)
    assert on_the_gpu.launches >= 3
    other = x.double().requires_grad_()
    c = torch.nn.functional.cross_entropy(other, target, reduction="none")
    want = (c * (1 - (-c).exp()) ** 2).mean()
    (2 * want).backward()
    assert_near(got[0], want.detach(), torch.float32)
    assert_near(got[1], other.grad, torch.float32)


@pytest.mark.parametrize(("rows", "width"), [(70, 3), (66, 70)], ids=["buffer", "lent"])
def test_linear_cross_entropy(rows, width, on_the_gpu):
    """A launch a chunk; the logits become their own gradient."""
    hidden, head = numbers(rows, width), numbers(90, width, seed=6)
    target = classes_of(rows, 90)
    target[3] = -100
    got = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
    want = [hidden.double().requires_grad_(), head.double().requires_grad_()]
    for options in ({}, {"label_smoothing": 0.1}):
        on_the_gpu.launches = 0
        value = linear_cross_entropy(*got, target, **options)
        assert on_the_gpu.launches == 2
        logits = want[0] @ want[1].T
        expected = torch.nn.functional.cross_entropy(logits, target, **options)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
        found = torch.autograd.grad(value, got)
        for one, other in zip(found, torch.autograd.grad(expected, want), strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-7)
    value, lse = linear_cross_entropy(*got, target, return_lse=True)
    found = torch.autograd.grad(3 * value + lse.square().sum(), got)
    logits = want[0] @ want[1].T
    expected = torch.where(target == -100, 0, logits.logsumexp(1)).square().sum()
    expected = expected + 3 * torch.nn.functional.cross_entropy(logits, target)
    for one, other in zip(found, torch.autograd.grad(expected, want), strict=True):
        atol = 2e-6 * float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=atol)
    value = linear_cross_entropy(*got, target, z_loss=0.01, soft_cap=5.0)
    capped = 5 * (want[0] @ want[1].T / 5).tanh()
    expected = torch.nn.functional.cross_entropy(capped, target)
    expected = expected + 0.01 * capped.logsumexp(1)[target != -100].square().mean()
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    for one, other in zip(
        torch.autograd.grad(value, got), torch.autograd.grad(expected, want), strict=True
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-7)
