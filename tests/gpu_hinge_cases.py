"""The multi-class hinge losses on the GPU: numbers, rows left out, ways back; run by test_gpu.py."""

from __future__ import annotations

import pytest
import torch
from gpu_row_support import INF, NAN, TYPES, assert_near, classes_of, numbers, on_the_gpu, wide_of
from gpu_row_support import value_and_gradient as of_loss
from gpu_support import DEVICE
from hinge_by_hand import HARD, by_hand

from ravine.errors import TargetError
from ravine.losses import hinge, multi_margin
from ravine.losses.kernels import hinge_cpu, hinge_gpu, row_launch
from ravine.losses.row_formula import Arrived

assert on_the_gpu
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")

KINDS = [{}, {"p": 1}, {"p": 2, "margin": 0.5}]
EACH = pytest.mark.parametrize("options", KINDS, ids=["worst", "p=1", "p=2"])


def value_and_gradient(x, target, options, **others):
    return of_loss(x, target, loss=multi_margin if options else hinge, **options, **others)


def exact(x, target, options, weight=None, upstream=1.0):
    """Return the mean and its gradient in float64."""
    losses, slopes = by_hand(x, target, weight, **options)
    amount = len(x) if weight is None else weight.double().sum()
    return losses.sum() / amount, slopes * upstream / amount


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(2, torch.float16), (1000, torch.bfloat16)]
    + [(classes, dtype) for classes in (10, 1025) for dtype in TYPES],
)
@EACH
def test_class_by_class(classes, dtype, options, on_the_gpu, monkeypatch):
    if classes == 1025:  # in tiles
        monkeypatch.setattr(row_launch, "WIDEST", 512)
    rows, wide = 130 if classes == 10 else 3, wide_of(dtype)
    x, target = 2 * numbers(rows, classes, dtype=dtype), classes_of(rows, classes)
    weight, of_class = (numbers(n, seed=3, dtype=wide).abs() for n in (rows, classes))
    weight[1] = 0
    got = value_and_gradient(x, target, options)
    assert on_the_gpu.launches == 2  # the second one sees that 1 arrives on the way back
    assert got[0].dtype is wide and got[1].dtype is dtype
    weighted = {"class_weight": of_class} if options else {}
    more = value_and_gradient(x, target, {**options, **weighted}, weight=weight, upstream=3.0)
    times = {"times": of_class} if options else {}
    want = exact(x, target, options)
    wanted = exact(x, target, {**options, **times}, weight, 3.0)
    for pair, other in ((got, want), (more, wanted)):
        assert_near(pair[0], other[0], dtype)
        assert_near(pair[1], other[1], dtype)
    assert not more[1][1].any()


@pytest.mark.parametrize("columns", [4, 2], ids=["one tile", "two tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@EACH
def test_hard_rows(options, dtype, columns, monkeypatch):
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    x = HARD.to(DEVICE).to(dtype)
    for y in range(3):
        target = torch.full((len(x),), y, device=DEVICE)
        gradient = torch.full_like(x, 7.0)
        losses = hinge_gpu.rows_hinge(x, target, None, 1.0, gradient, **options)
        want, slopes = by_hand(x, target, **options)
        torch.testing.assert_close(losses, want.to(losses.dtype), rtol=1e-6, atol=0, equal_nan=True)
        slopes = slopes.float().to(dtype)
        torch.testing.assert_close(gradient, slopes, rtol=1e-6, atol=0, equal_nan=True)
        assert torch.equal(
            hinge_gpu.rows_hinge(x, target, None, 1.0, None, **options).nan_to_num(9),
            losses.nan_to_num(9),
        )
        here = x.clone()  # the gradient may lie where the scores do
        hinge_gpu.rows_hinge(here, target, None, 1.0, here, **options)
        assert torch.equal(here.nan_to_num(9), gradient.nan_to_num(9))


@pytest.mark.parametrize("columns", [4, 2], ids=["one tile", "two tiles"])
@EACH
def test_a_row_left_out_may_hold_anything(options, columns, monkeypatch):
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    x, target = numbers(len(HARD) + 2, 3), classes_of(len(HARD) + 2, 3)
    x[1:-1] = HARD.to(DEVICE)
    weight = torch.zeros(len(x), device=DEVICE)
    weight[0], weight[-1] = 0.5, 2.0
    got = value_and_gradient(x, target, options, weight=weight)
    want = exact(x[[0, -1]], target[[0, -1]], options, weight[[0, -1]])
    assert_near(got[0], want[0], torch.float32)
    assert_near(got[1][[0, -1]], want[1], torch.float32)
    assert not got[1][1:-1].any()
    # Its slopes are 0 whatever they are multiplied with.
    gradient = torch.full_like(x, 7.0)
    hinge_gpu.rows_hinge(x, target, weight, NAN, gradient, **options)
    assert not gradient[1:-1].any()


@EACH
def test_classes_out_of_range(options, on_the_gpu):
    x, target = numbers(3, 4), torch.tensor([0, 4, 1], device=DEVICE)
    with pytest.raises(TargetError, match=r"row 1 of 3"):
        value_and_gradient(x, target, options)
    assert not on_the_gpu.launches
    losses, gradient = value_and_gradient(x, target, options, reduction="none", check="off")
    assert losses.isnan().tolist() == [False, True, False]
    assert not options or gradient.isnan().all(1).tolist() == [False, True, False]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@EACH
def test_without_checks_the_host_reads_nothing(options, reduction, monkeypatch):
    x, target = numbers(5, 4), classes_of(5, 4)
    weight = numbers(5, seed=3).abs()
    leaf = x.clone().requires_grad_()
    arriving = torch.tensor(2.5, device=DEVICE)

    def refuse(tensor, *_):
        raise AssertionError("the host would wait for the device")

    loss = multi_margin if options else hinge
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
            patch.setattr(torch.Tensor, name, refuse)
        value = loss(leaf, target, weight=weight, reduction=reduction, check="off", **options)
        (gradient,) = torch.autograd.grad(value, leaf, arriving)
    times = 1.0 if reduction == "mean" else weight.double().sum()
    want = exact(x, target, options, weight, 2.5 * times)
    assert_near(value, want[0] * times, torch.float32)
    assert_near(gradient, want[1], torch.float32)


@EACH
def test_checked_the_host_waits_once(options, monkeypatch):
    x, target = numbers(5, 4).requires_grad_(), classes_of(5, 4)
    waits = []
    tolist = torch.Tensor.tolist

    def waiting(tensor):
        waits.append(tensor)
        return tolist(tensor)

    def refuse(tensor, *_):
        raise AssertionError("the host would wait once more")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", waiting)
        for name in ("item", "cpu", "__bool__", "__float__", "__int__"):
            patch.setattr(torch.Tensor, name, refuse)
        value_and_gradient(x, target, options)
    assert len(waits) == 1


@pytest.mark.parametrize("columns", [64, 16], ids=["one tile", "tiles"])
@EACH
def test_ways_back(options, columns, on_the_gpu, monkeypatch):
    """1 arrives and nothing is computed anew; else all factors come before the rounding."""
    monkeypatch.setattr(row_launch, "WIDEST", columns)
    x, target = numbers(4, 50, dtype=torch.float16).requires_grad_(), classes_of(4, 50)
    loss = (multi_margin if options else hinge)(x, target, normalizer=3e7, **options)
    losses, slopes = by_hand(x.detach(), target, **options)
    slopes /= 3e7
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert_near(loss.detach(), losses.sum() / 3e7, torch.float16)
    assert_near(first, slopes, torch.float16)
    for upstream in (65536.0, 1.0):  # the second one without what was kept
        given = torch.tensor(upstream, device=DEVICE)
        (again,) = torch.autograd.grad(loss, x, given, retain_graph=True)
        assert_near(again, slopes * upstream, torch.float16)
    leaf = x.detach().clone().requires_grad_()
    loss = (multi_margin if options else hinge)(leaf, target, normalizer=3e7, **options)
    loss.backward(torch.tensor(65536.0, device=DEVICE))
    assert_near(leaf.grad, slopes * 65536, torch.float16)

    launched, kept = on_the_gpu.launches, torch.full((4, 50), 7.0, device=DEVICE)
    one = torch.ones((), device=DEVICE)
    half = torch.tensor(0.5, dtype=torch.float64, device=DEVICE)
    hinge_gpu.rows_hinge(x.detach().float(), target, None, Arrived(half, one), kept, **options)
    assert (kept == 7).all() and on_the_gpu.launches == launched + 1


@EACH
def test_each_row_has_its_own_way_back_and_a_second_derivative(options):
    x, target = numbers(3, 5, dtype=torch.float64), classes_of(3, 5)
    arriving = numbers(3, seed=8, dtype=torch.float64)
    want = by_hand(x, target, **options)[1] * arriving[:, None]
    for create_graph in (False, True):
        leaf = x.clone().requires_grad_()
        losses = (multi_margin if options else hinge)(leaf, target, reduction="none", **options)
        (got,) = torch.autograd.grad(losses, leaf, arriving, create_graph=create_graph)
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)
    assert got.requires_grad == (options.get("p") == 2)
    if got.requires_grad:
        other = x.clone().requires_grad_()
        close = (0.5 + other - other.gather(1, target[:, None])).clamp_min(0) ** 2
        losses = (close.sum(1) - 0.25) / 5  # without the target's own
        (wanted,) = torch.autograd.grad(losses, other, arriving, create_graph=True)
        expected = torch.autograd.grad(wanted.square().sum(), other)[0]
        second = torch.autograd.grad(got.square().sum(), leaf)[0]
        torch.testing.assert_close(second, expected, rtol=1e-12, atol=1e-14)


def test_an_empty_batch(on_the_gpu):
    x, target = numbers(0, 4), classes_of(0, 4)
    value, gradient = value_and_gradient(x, target, {"p": 1}, reduction="sum")
    assert value == 0 and gradient.shape == (0, 4)
    assert hinge(numbers(1, 4), classes_of(1, 4), reduction="none").shape == (1,)


@EACH
def test_a_class_alone_has_no_rival(options):
    x = torch.tensor([1.0, INF, -INF, NAN], device=DEVICE)[:, None]
    target, gradient = torch.zeros(4, dtype=torch.int64, device=DEVICE), torch.full_like(x, 7.0)
    losses = hinge_gpu.rows_hinge(x, target, None, 1.0, gradient, **options)
    want = hinge_cpu.rows_hinge(x.cpu(), target.cpu(), None, 1.0, None, **options)
    assert torch.equal(losses.cpu().nan_to_num(9), want.nan_to_num(9))
    assert not gradient.any()
