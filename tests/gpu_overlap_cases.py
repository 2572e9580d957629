"""Dice and Tversky losses with classes on the GPU; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from gpu_row_support import EPS, TYPES, Counted, Counter, take_for_a_gpu
from gpu_support import DEVICE
from test_class_overlap import HARD, INF, NAN, WIDE, exact, sums_and_slope, turned
from test_class_overlap import case as case_on_cpu

from ravine import losses
from ravine.errors import TargetError
from ravine.losses import class_overlap, executors
from ravine.losses.class_overlap import class_overlaps

pytest.importorskip("triton")
from ravine.losses.kernels import class_overlap_gpu, class_overlap_triton

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch):
    """Run on a GPU, or as if; all tests must have launched a kernel."""
    counters = Counter(), Counter()
    for name, counter in zip(("sums", "slopes"), counters, strict=True):
        kernel = getattr(class_overlap_triton, name)
        monkeypatch.setattr(class_overlap_triton, name, Counted(kernel, counter))
    take_for_a_gpu(monkeypatch)
    yield counters
    assert counters[0].launches


def case(*given):
    return (t.to(DEVICE) for t in case_on_cpu(*given))


SOFT = pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])


@SOFT
@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 700), (1, 19, 70), (2, 1, 9), (3, 130, 2)], ids=str)
def test_against_float64(shape, kind, soft, monkeypatch, on_the_gpu):
    monkeypatch.setattr(class_overlap_gpu, "TILE", 512)  # several in a program, several programs
    monkeypatch.setattr(class_overlap_gpu, "PROGRAMS", 3)
    wide = WIDE if kind is WIDE else torch.float32
    x, y = case(shape, wide, soft)
    x, upstream = x.to(kind), torch.randn(3, *shape[:2]).to(DEVICE, wide)
    found, slope = sums_and_slope(x, y, upstream)
    right, right_slope = (t.to(DEVICE) for t in exact(x.cpu(), y.cpu(), upstream.cpu()))
    assert found.dtype is wide and slope.dtype is kind
    near = 8 * EPS[wide]
    torch.testing.assert_close(found.double(), right, rtol=near, atol=near)
    own = torch.finfo(kind).eps / 2 if kind is not wide else 0.0
    tiny = near + (2.0**-25 if kind is torch.float16 else 0.0)
    torch.testing.assert_close(slope.double(), right_slope, rtol=near + own, atol=tiny)
    again = sums_and_slope(x, y, upstream)
    assert torch.equal(again[0], found) and torch.equal(again[1], slope)
    assert on_the_gpu[1].launches == 2
    other = sums_and_slope(turned(x), y, upstream)  # classes side by side
    assert torch.equal(other[0], found) and torch.equal(other[1], slope)
    assert other[1].movedim(1, -1).is_contiguous() or soft


@pytest.mark.parametrize("height", [3.0, 17.0, 80.0])
def test_almost_perfect_and_almost_all_wrong_to_the_last_digits(height):
    x = torch.tensor([height, 0.5, 0.0, -1.0], device=DEVICE)[None, :, None].repeat(1, 1, 70)
    h = torch.tensor([[[0.25, -3.0, 7.0, 1.5]], [[2.0, 5.0, -4.0, 0.75]], [[-1.0] * 4]])
    e = (x[0, :, 0].double() - height).exp().cpu()
    for own in range(4):
        target = torch.full((1, 70), own, device=DEVICE)
        found, slope = sums_and_slope(x, target, h.to(DEVICE))
        others = e.sum() - e  # none of them near another
        others[0] = e[1:].sum()
        at = h[1, 0].double()
        at[own] = float(h[0, 0, own] - h[2, 0, own])
        want = torch.stack([e[k] * (e * (at[k] - at)).sum() / e.sum() ** 2 for k in range(4)])
        near = {"rtol": (height + 8) * EPS[torch.float32], "atol": 0.0}
        torch.testing.assert_close(slope[0, :, 3].cpu().double(), want, **near)
        missed = 70 * others[own] / (1 + e[1:].sum())
        torch.testing.assert_close(found[2, 0, own].cpu().double(), missed, **near)


@SOFT
def test_hard_places_as_on_the_cpu(soft, monkeypatch):
    x = torch.tensor(HARD, device=DEVICE)[..., None]
    y = torch.zeros(len(x), 1, dtype=torch.int64, device=DEVICE)
    if soft:
        y = torch.tensor([0.5, 0.0, 0.5, 0.0], device=DEVICE)[:, None].expand(x.shape)
    upstream = torch.randn(3, len(x), 4)
    for classes in (4, 3):
        some, mask = x[:, :classes], y[:, :classes] if soft else y
        arriving = upstream[:, :, :classes]
        found, slope = sums_and_slope(some, mask, arriving.to(DEVICE))
        with monkeypatch.context() as patch:
            patch.setattr(executors, "kind_of", lambda tensor: "cpu")
            want, want_slope = sums_and_slope(some.cpu(), mask.cpu(), arriving)
        near = {"rtol": 2e-6, "atol": 2e-6, "equal_nan": True}
        clean = ~some.isnan().any(1)[:, 0].cpu()
        torch.testing.assert_close(found.cpu()[:, clean], want[:, clean], **near)
        assert found.cpu()[:, ~clean].sum(0).isnan().all()
        torch.testing.assert_close(slope.cpu(), want_slope, **near)


@SOFT
def test_what_is_left_out_is_not_looked_at(soft, monkeypatch):
    monkeypatch.setattr(class_overlap_gpu, "TILE", 128)
    x, y = case((3, 5, 40), torch.float32, soft)
    upstream = torch.randn(3, 3, 5).to(DEVICE)
    counts = torch.tensor([True, False, True], device=DEVICE)
    bad, wrong = x.clone(), y.clone()
    bad[1] = NAN
    if soft:
        wrong[1] = NAN
    else:
        y[0, 3], y[2, 20:] = 2, 2
        wrong = y.clone()
        bad[0, :, 3], bad[2, :, 20:] = NAN, INF
    right, right_slope = sums_and_slope(x[::2], y[::2], upstream[:, ::2], ignored=2)
    arriving = upstream.clone()
    arriving[:, 1] = NAN
    found, slope = sums_and_slope(bad, wrong, arriving, ignored=2, counts=counts)
    assert torch.equal(found[:, ::2], right) and not found[:, 1].any()
    assert torch.equal(slope[::2], right_slope) and not slope[1].any()
    if not soft:
        assert not slope[0][:, y[0] == 2].any() and not slope[2][:, y[2] == 2].any()


def test_classes_out_of_range():
    x, y = case((1, 3, 70), torch.float32, False)
    y[0, :4] = torch.tensor([3, -1, 2**32 + 1, -(2**62)])
    with pytest.raises(TargetError, match=r"row 0 of 70 \(4 such rows\)"):
        losses.dice(x, y, dim=1)
    upstream = torch.randn(3, 1, 3).to(DEVICE)
    found, slope = sums_and_slope(x, y, upstream)
    right, right_slope = exact(x.cpu(), y.cpu(), upstream.cpu())
    torch.testing.assert_close(found.cpu().double(), right, rtol=2e-6, atol=0)
    torch.testing.assert_close(slope.cpu().double(), right_slope, rtol=2e-6, atol=2e-6)


def test_the_whole_loss_and_second_derivatives(on_the_gpu):
    x, y = case((2, 3, 4), WIDE, False)
    z = x.clone().requires_grad_()
    call = lambda v: losses.tversky(v, y, dim=1, alpha=0.3, gamma=0.75, reduction="none")  # noqa: E731
    assert torch.autograd.gradcheck(call, z)
    (slope,) = torch.autograd.grad(call(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), z)
    launched = on_the_gpu[0].launches
    wanted = torch.func.grad(lambda v: torch.func.grad(lambda u: call(u).sum())(v).square().sum())
    torch.testing.assert_close(second, wanted(x), rtol=1e-9, atol=1e-12)
    assert on_the_gpu[0].launches == launched  # the plain operations


def test_more_classes_than_a_tile_holds_are_left_to_plain_operations(monkeypatch, on_the_gpu):
    x, y = case((1, 5, 3), torch.float32, False)
    found = torch.stack(class_overlaps(x, y, None, 1, -100))
    launched = on_the_gpu[0].launches
    monkeypatch.setattr(class_overlap_gpu, "widest", lambda kind: 4)
    assert class_overlap._kernels(x, 1) is None
    torch.testing.assert_close(torch.stack(class_overlaps(x, y, None, 1, -100)), found)
    assert on_the_gpu[0].launches == launched
