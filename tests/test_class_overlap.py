"""The sums of which dice and Tversky losses with classes are made: CPU kernel, place in autograd."""

from __future__ import annotations

import ctypes

import mpmath
import pytest
import torch
from torch import Tensor

from ravine import losses
from ravine.errors import TargetError
from ravine.losses import class_overlap
from ravine.losses.class_overlap import class_overlaps
from ravine.losses.kernels import class_overlap_cpu

INF, NAN, WIDE = torch.inf, torch.nan, torch.float64
# Relative error of sums of a few roundings each; the exponential of a difference d is off by abs(d) eps / 2.
EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23}
SHAPES = [(2, 3, 5), (1, 19, 300), (3, 1, 70), (2, 2, 64), (1, 130, 65), (5, 10, 1), (1, 1000, 3)]
KINDS = pytest.mark.parametrize("kind", [torch.float64, torch.float32], ids=str)
SOFT = pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch):
    """Let a chunk be few places, so that samples have several."""
    monkeypatch.setattr(class_overlap_cpu, "CHUNK", 64)


def case(shape: tuple[int, ...], kind: torch.dtype, soft: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(sum(shape))
    x = (torch.randn(shape, dtype=WIDE) * 3).to(kind)
    if soft:
        return x, torch.randn(shape, dtype=WIDE).softmax(1).to(kind)
    return x, torch.randint(shape[1], (shape[0], *shape[2:]))


def oracle(x: Tensor, y: Tensor, ignored: int = -100) -> Tensor:
    """Return the three sums (3, N, K) as one writes them, in float64; the classes are dimension 1."""
    p = x.double().movedim(1, -1).softmax(-1)
    if y.is_floating_point():
        mask = y.double().movedim(1, -1)
    else:
        p = p * (y != ignored)[..., None]
        mask = (y[..., None] == torch.arange(x.shape[1])).double() * (y != ignored)[..., None]
    kept = torch.ones_like(p) if y.is_floating_point() else (y != ignored)[..., None].double()
    terms = p * mask, p * (1 - mask), (kept - p) * mask
    return torch.stack([t.flatten(1, -2).sum(1) for t in terms])


def sums_and_slope(
    x: Tensor, y: Tensor, upstream: Tensor, dim: int = 1, ignored: int = -100, counts=None
):
    z = x.clone().requires_grad_()
    found = torch.stack(class_overlaps(z, y, counts, dim, ignored))
    (slope,) = torch.autograd.grad(found, z, upstream.to(found.dtype))
    return found.detach(), slope


def exact(x: Tensor, y: Tensor, upstream: Tensor):
    z = x.double().requires_grad_()
    found = oracle(z, y)
    (slope,) = torch.autograd.grad(found, z, upstream.double())
    return found.detach(), slope


@SOFT
@KINDS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_plain_operations_in_float64(shape, kind, soft):
    x, y = case(shape, kind, soft)
    upstream = torch.randn(3, *shape[:2], dtype=kind)
    found, slope = sums_and_slope(x, y, upstream)
    right, right_slope = exact(x, y, upstream)
    assert found.dtype is kind and slope.dtype is kind
    torch.testing.assert_close(found.double(), right, rtol=8 * EPS[kind], atol=8 * EPS[kind])
    torch.testing.assert_close(slope.double(), right_slope, rtol=8 * EPS[kind], atol=8 * EPS[kind])


def turned(x: Tensor) -> Tensor:
    """Return the same with the classes of a place side by side in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_classes_side_by_side(shape, kind):
    x, y = case(shape, WIDE, False)
    x, upstream = x.to(kind), torch.randn(3, *shape[:2], dtype=WIDE)
    y[-1, -1] = -100
    counts = torch.arange(shape[0]) != 1
    right, right_slope = sums_and_slope(x, y, upstream, counts=counts)
    found, slope = sums_and_slope(turned(x), y, upstream, counts=counts)
    assert torch.equal(found, right) and torch.equal(slope, right_slope)
    assert slope.movedim(1, -1).is_contiguous()


@SOFT
def test_every_place_of_the_classes_and_every_order_of_memory(soft):
    x, y = case((2, 5, 7, 3), WIDE, soft)
    upstream = torch.randn(3, 2, 5, dtype=WIDE)
    found, slope = sums_and_slope(x, y, upstream)
    for dim in (2, 3, -1, -2):
        moved = x.movedim(1, dim)
        mask = y.movedim(1, dim) if soft else y
        for z in (moved, moved.contiguous()):
            got, gradient = sums_and_slope(z, mask, upstream, dim)
            assert torch.equal(got, found)
            assert torch.equal(gradient.movedim(dim, 1), slope)
    last = x.to(memory_format=torch.channels_last)
    mask = y.repeat_interleave(2, -1)[..., ::2]
    got, gradient = sums_and_slope(last, mask, upstream)
    assert torch.equal(got, found) and torch.equal(gradient, slope)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
@SOFT
def test_halves_are_read_as_they_are_and_their_slope_is_rounded_once(kind, soft):
    x, y = case((2, 19, 200), torch.float32, soft)
    x, upstream = x.to(kind), torch.randn(3, 2, 19) * 100
    found, slope = sums_and_slope(x, y, upstream)
    wide, wide_slope = sums_and_slope(x.float(), y, upstream)
    assert slope.dtype is kind and found.dtype is torch.float32
    assert torch.equal(found, wide) and torch.equal(slope, wide_slope.to(kind))


@SOFT
def test_the_same_on_any_number_of_threads(soft):
    x, y = case((2, 19, 1000), torch.float32, soft)
    upstream, before = torch.randn(3, 2, 19), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(sums_and_slope(x, y, upstream))
    finally:
        torch.set_num_threads(before)
    for sums, slope in found[1:]:
        assert torch.equal(sums, found[0][0]) and torch.equal(slope, found[0][1])


def test_a_thread_for_which_there_is_no_room_does_nothing(monkeypatch):
    x, y = case((2, 19, 1000), torch.float32, False)
    kernel, _ = class_overlap_cpu._kernels(torch.float32, False, False, False)

    def parallel(head):
        table = (ctypes.c_int64 * 2).from_address(head)
        table[1] = 1  # the only thread that is expected has come
        kernel.serial(head)
        assert table[:] == [0, 2]
        table[1] = 0
        kernel.serial(head)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(kernel, "parallel", parallel)
    found = torch.stack(class_overlaps(x, y, None, 1, -100))
    torch.testing.assert_close(found.double(), oracle(x, y), rtol=1e-6, atol=1e-6)


# --- hard inputs ---------------------------------------------------------------------------------

HARD = [
    [-INF, 0.0, 1.0, -INF], [INF, 0.0, 1.0, 2.0], [0.0, INF, INF, 2.0], [-INF] * 4, [INF] * 4,
    [NAN, 0.0, 1.0, 2.0], [0.0, 1.0, INF, NAN], [-INF, -INF, -INF, NAN], [1e9, -1e9, 0.0, 0.0],
    [3e38, -3e38, 3e38, 0.0], [100.0, 0.0, 0.0, 0.0], [0.0, 100.0, 0.0, 100.0], [5.0] * 4,
    [0.0, 1e-8, 0.0, -1e-8],
]  # fmt: skip


@SOFT
@KINDS
def test_hard_places_as_by_plain_operations(kind, soft, monkeypatch):
    x = torch.tensor(HARD, dtype=kind)[..., None]
    y = torch.tensor([0.5, 0.0, 0.5, 0.0], dtype=kind)[:, None].expand(x.shape)
    upstream = torch.randn(3, len(x), 4, dtype=kind)
    for target in (y,) if soft else (torch.zeros(len(x), 1).long(), torch.ones(len(x), 1).long()):
        found, slope = sums_and_slope(x, target, upstream)
        with monkeypatch.context() as patch:
            patch.setattr(class_overlap, "_kernels", lambda *given: None)
            plain, _ = sums_and_slope(x, target, upstream)
        lost = x.isnan().any(1)[:, 0]  # something of each class, at least
        assert found[:, lost].sum(0).isnan().all()
        torch.testing.assert_close(
            found[:, ~lost], plain[:, ~lost], rtol=8 * EPS[kind], atol=2.0**-126
        )
        # Autograd's own slope of infinite logits is NaN: that of the limit, a finite logit far off.
        # Where only -inf is, all are alike.
        near = torch.where(x.isinf().all(1, keepdim=True), 0.0, x.double().clamp(-4e38, 4e38))
        _, right = exact(near, target, upstream)
        torch.testing.assert_close(
            slope.double(), right, rtol=16 * EPS[kind], atol=16 * EPS[kind], equal_nan=True
        )


@KINDS
@pytest.mark.parametrize("height", [3.0, 17.0, 30.0, 80.0])
def test_almost_perfect_and_almost_all_wrong_to_the_last_digits(height, kind):  # numerics 15, 20
    x = torch.tensor([height, 0.5, 0.0, -1.0], dtype=kind)[None, :, None].repeat(1, 1, 70)
    upstream = torch.tensor([[[0.25, -3.0, 7.0, 1.5]], [[2.0, 5.0, -4.0, 0.75]], [[-1.0] * 4]])
    mpmath.mp.dps = 60
    powers = [mpmath.exp(mpmath.mpf(v)) for v in x[0, :, 0].tolist()]
    p = [e / sum(powers) for e in powers]
    off = [sum(p[j] for j in range(4) if j != k) for k in range(4)]
    for own in range(4):
        found, slope = sums_and_slope(x, torch.full((1, 70), own), upstream)
        right, excess, missed = found[:, 0]
        near = (height + 8) * EPS[kind]
        assert float(right[own]) == pytest.approx(float(70 * p[own]), rel=near)
        assert float(missed[own]) == pytest.approx(float(70 * off[own]), rel=near)
        assert excess[own] == 0
        h = [mpmath.mpf(v) for v in upstream[1, 0].tolist()]
        h[own] = mpmath.mpf(float(upstream[0, 0, own] - upstream[2, 0, own]))
        for k in range(4):
            if k != own:
                assert float(excess[k]) == pytest.approx(float(70 * p[k]), rel=near)
                assert right[k] == missed[k] == 0
            exactly = p[k] * sum(p[j] * (h[k] - h[j]) for j in range(4))
            assert float(slope[0, k, 3]) == pytest.approx(float(exactly), rel=2 * near), (own, k)


@SOFT
def test_what_is_left_out_is_not_looked_at(soft):  # numerics 12
    x, y = case((3, 5, 70), torch.float32, soft)
    upstream = torch.randn(3, 3, 5)
    counts = torch.tensor([True, False, True])
    bad, wrong = x.clone(), y.clone()
    bad[1] = NAN
    if soft:
        wrong[1] = NAN
    else:
        y[0, 3], y[0, 4], y[2, 40:] = 2, 0, 2
        wrong = y.clone()
        bad[0, :, 3], bad[2, :, 40:] = NAN, INF
    right, right_slope = sums_and_slope(x[::2], y[::2], upstream[:, ::2], ignored=2)
    arriving = upstream.clone()
    arriving[:, 1] = NAN  # whatever arrives
    found, slope = sums_and_slope(bad, wrong, arriving, ignored=2, counts=counts)
    assert torch.equal(found[:, ::2], right) and not found[:, 1].any()
    assert torch.equal(slope[::2], right_slope) and not slope[1].any()
    if not soft:
        assert not slope[0][:, y[0] == 2].any() and not slope[2][:, y[2] == 2].any()
        bad[0, :, 3] = 0
        bad[0, 1, 4] = NAN  # the sample's slopes are NaN, but for places that are ignored
        arriving[:, 0] = NAN
        _, slope = sums_and_slope(bad, wrong, arriving, ignored=2, counts=counts)
        assert slope[0, :, 3].tolist() == [0] * 5 and slope[0, :, 4].isnan().all()
    plain = class_overlap._shares(class_overlap.Masks(bad, wrong, counts, 1, 2))
    assert all(not z[1].any() for z in plain)


def test_a_class_out_of_range_is_that_of_no_class():
    x, y = case((1, 3, 70), torch.float32, False)
    y[0, :4] = torch.tensor([3, -1, 2**32 + 1, -(2**62)])
    upstream = torch.randn(3, 1, 3)
    found, slope = sums_and_slope(x, y, upstream)
    right, right_slope = exact(x, y, upstream)
    torch.testing.assert_close(found.double(), right, rtol=1e-6, atol=0)
    torch.testing.assert_close(slope.double(), right_slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool])
def test_targets_of_every_integer_type(kind):
    x, y = case((2, 2, 9), torch.float32, False)
    assert torch.equal(losses.dice(x, y.to(kind), dim=1), losses.dice(x, y, dim=1))
    if kind is torch.uint8:  # 156 and -100 are the same uint8
        x = torch.randn(2, 200, 3)
        y = torch.full((2, 3), 156)
        assert torch.equal(losses.dice(x, y.to(kind), dim=1), losses.dice(x, y, dim=1))


@pytest.mark.parametrize("bad", [-100.0, 7.0, 1.5, -0.25, NAN])
def test_probabilities_are_shares_whatever_the_ignored_class_is(bad):
    x, y = case((2, 3, 4), torch.float32, True)
    y[1, 2, 3] = bad
    with pytest.raises(TargetError, match=r"target\[1, 2, 3\]"):
        losses.dice(x, y, dim=1)


def test_no_places_and_no_samples():
    for shape in ((2, 3, 0), (0, 3, 4)):
        x = torch.zeros(shape, requires_grad=True)
        found = torch.stack(
            class_overlaps(x, torch.zeros(shape[0], shape[2]).long(), None, 1, -100)
        )
        assert found.shape == (3, *shape[:2]) and not found.any()
        found.sum().backward()
        assert x.grad.shape == shape


# --- autograd ------------------------------------------------------------------------------------


@SOFT
def test_many_gradients_at_once_and_second_derivatives(soft):
    x, y = case((2, 3, 4), WIDE, soft)
    x.requires_grad_()
    upstream = torch.randn(5, 3, 2, 3, dtype=WIDE)
    found = torch.stack(class_overlaps(x, y, None, 1, 1))
    each = [torch.autograd.grad(found, x, one, retain_graph=True)[0] for one in upstream]
    (both,) = torch.autograd.grad(found, x, upstream, is_grads_batched=True)
    torch.testing.assert_close(both, torch.stack(each), rtol=1e-12, atol=1e-14)
    call = lambda z: torch.stack(class_overlaps(z, y, None, 1, 1))  # noqa: E731
    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


def test_a_second_way_back_and_logits_changed_meanwhile():
    x, y = case((2, 3, 400), torch.float32, False)
    z = x.clone().requires_grad_()
    found = losses.dice(z, y, dim=1)
    found.backward(retain_graph=True)
    first, z.grad = z.grad, None
    found.backward()
    assert torch.equal(first, z.grad) and first.data_ptr() != z.grad.data_ptr()
    w = z * 1
    found = losses.dice(w, y, dim=1)
    with torch.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_a_target_may_need_a_gradient():
    x, y = case((2, 3, 4), WIDE, True)
    x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *z: torch.stack(class_overlaps(*z, None, 1, -100)), (x, y)
    )


def test_what_is_seen_by_nobody_takes_the_kernel_and_nothing_else(monkeypatch):
    """Every other test of the losses would pass by plain operations, too."""
    calls = []
    for name in ("overlap_sums", "overlap_slopes"):
        real = getattr(class_overlap_cpu, name)
        count = lambda *given, real=real, name=name: calls.append(name) or real(*given)  # noqa: E731
        monkeypatch.setattr(class_overlap_cpu, name, count)
    x, y = case((2, 3, 4), torch.float32, False)
    x.requires_grad_()
    found = losses.tversky(x, y, dim=1)
    found.backward(retain_graph=True)
    assert calls == ["overlap_sums", "overlap_slopes"]
    torch.autograd.grad(found, x, create_graph=True)
    torch.func.grad(lambda z: losses.dice(z, y, dim=1))(x.detach())
    assert len(calls) == 2
