"""Losses of whole samples where others return NaN, lose digits, or silently take what is wrong."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F

from ravine import losses
from ravine.errors import ArgumentError

WIDE = torch.float64


def leaf(x):
    return x.clone().requires_grad_()


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_triplets_at_distance_0(p):  # numerics 8
    a, q, n = leaf(torch.ones(3, 4)), leaf(torch.ones(3, 4)), leaf(torch.ones(3, 4))
    found = losses.triplet(a, q, n, eps=0.0, p=p, swap=True)
    found.backward()
    assert found.item() == 1
    for t in (a, q, n):
        assert (t.grad == 0).all()
    call = lambda z: losses.triplet(z, q.detach(), n.detach() + 1, eps=0.0, p=p, margin=9.0)  # noqa: E731
    assert torch.func.hessian(call)(a.detach()).isfinite().all()


def test_no_active_triplet_and_the_kink():
    a = leaf(torch.zeros(2, 2))
    far = torch.tensor([[100.0, 0.0], [2.0, 0.0]])
    found = losses.triplet(a, torch.tensor([[0.0, 1.0]] * 2), far, eps=0.0, reduction="none")
    assert found.tolist() == [0, 0]  # the second one at the kink
    found.sum().backward()
    assert (a.grad == 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_squares_beyond_float32(size):
    a, q = leaf(torch.tensor([[3 * size, 4 * size]])), torch.zeros(1, 2)
    found = losses.triplet(a, q, q, eps=0.0, margin=1.0, reduction="none")
    assert found.item() == pytest.approx(1.0)
    z = torch.tensor([[size, 0.0], [0.0, size]])
    one = losses.info_nce(z, z, temperature=1.0)
    assert one.item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)
    near = losses.contrastive(a, q, torch.tensor([1]), margin=10 * size)
    assert near.item() == pytest.approx(12.5 * size**2 if size < 1 else math.inf, abs=1e-44)


def test_float16_at_its_end_and_infinite_vectors():
    a = leaf(torch.full((1, 3), 6e4, dtype=torch.float16))
    n = torch.zeros(1, 3, dtype=torch.float16)
    found = losses.triplet(a, -a.detach(), n, eps=0.0)
    found.backward()
    assert found.item() == pytest.approx(1 + math.sqrt(3) * a[0, 0].item(), rel=1e-6)
    assert a.grad.isfinite().all()
    wild = leaf(torch.tensor([[torch.inf, 0.0]]))
    zero = torch.zeros(1, 2)
    assert losses.triplet(zero, wild, zero).item() == math.inf
    found = losses.triplet(zero, zero, wild)
    found.backward()
    assert found.item() == 0
    assert (wild.grad == 0).all()
    assert losses.triplet(zero, zero, zero + torch.nan).isnan()


def test_contrastive_pairs_at_distance_0():
    x = leaf(torch.ones(2, 3, dtype=WIDE))
    call = lambda z: losses.contrastive(z, x.detach(), torch.tensor([0, 1]), reduction="sum")  # noqa: E731
    assert call(x).item() == 0.5
    assert (torch.autograd.grad(call(x), x)[0] == 0).all()
    hessian = torch.func.hessian(call)(x.detach()).reshape(6, 6)
    torch.testing.assert_close(hessian, torch.diag(torch.tensor([1.0] * 3 + [0] * 3, dtype=WIDE)))
    assert call(torch.full((2, 3), torch.nan, dtype=WIDE)).isnan()


@pytest.mark.parametrize("loss", [losses.info_nce, losses.nt_xent])
def test_zero_vectors_have_slope_0(loss):  # numerics 8
    u, v = torch.randn(4, 3), torch.randn(4, 3)
    u[1], v[2] = 0, 0
    u, v = leaf(u), leaf(v)
    found = loss(u, v)
    found.backward()
    assert found.isfinite()
    assert u.grad.isfinite().all()
    assert v.grad.isfinite().all()
    assert (u.grad[1] == 0).all()
    assert (v.grad[2] == 0).all()
    assert loss(torch.full((2, 3), torch.nan), torch.ones(2, 3)).isnan()


@pytest.mark.parametrize("loss", [losses.info_nce, losses.nt_xent])
def test_a_temperature_can_be_learned(loss):
    u, v = torch.randn(4, 3, dtype=WIDE), torch.randn(4, 3, dtype=WIDE)
    temperature = torch.tensor(0.5, dtype=WIDE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: loss(u, v, temperature=t), (temperature,))
    for bad in (0, -1.0, torch.nan, torch.tensor(0.0), torch.ones(2), "1"):
        assert "temperature has a value" in message(ArgumentError, loss, u, v, temperature=bad)


def test_confident_info_nce_keeps_its_digits():  # numerics 20
    x = torch.eye(3) * 20
    exact = mpmath.log1p(2 * mpmath.exp(-400 / mpmath.mpf(16)))
    found = losses.info_nce(x, x, cosine=False, temperature=16.0)
    assert found.item() == pytest.approx(float(exact), rel=1e-6)  # 2.8e-11; torch: 0


def test_autocast_leaves_the_products_in_float32():
    u, v = torch.randn(8, 16), torch.randn(8, 16)
    exact = losses.info_nce(u, v)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.info_nce(u, v), exact)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_masks_near_perfection(kind):  # numerics 15
    x = leaf(torch.tensor([[17.0, -17.0], [6e4, -6e4]]).to(kind))
    y = torch.tensor([[1, 0]] * 2)
    found = losses.dice(x, y, smooth=0.0, reduction="none")
    off = 1 / (1 + mpmath.exp(17))
    assert found[0].item() == pytest.approx(float(off), rel=1e-6)
    assert found[1].item() == 0
    found.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad[0, 0].item() == pytest.approx(
        -float(off) / 2, rel=2 * torch.finfo(kind).eps, abs=2**-25
    )
    z = torch.tensor([[[17.0], [0.0], [0.0]]]).to(kind)
    classes = losses.tversky(z, torch.tensor([[0]]), dim=1, smooth=0.0, class_weight=[1.0, 0, 0])
    assert classes.item() == pytest.approx(float(mpmath.exp(-17)), rel=1e-6)


def test_infinite_logits_of_masks():
    inf = torch.inf
    x = leaf(torch.tensor([[inf, -inf, inf], [inf, inf, -inf]]))
    found = losses.dice(x, torch.tensor([[1, 0, 0], [1, 1, 0]]), smooth=0.0, reduction="none")
    assert found.tolist() == [pytest.approx(1 / 3), 0]
    found.sum().backward()
    assert (x.grad == 0).all()
    z = leaf(torch.tensor([[[inf], [-inf], [0.0]]]))
    found = losses.dice(z, torch.tensor([[0]]), dim=1, smooth=0.0)
    found.backward()
    assert found.item() == 0
    assert z.grad.isfinite().all()
    assert losses.dice(x * torch.nan, torch.ones(2, 3)).isnan()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_empty_masks_and_perfect_ones(gamma):
    x = leaf(torch.full((1, 4), -200.0))
    for smooth in (0.0, 1.0):
        found = losses.tversky(x, torch.zeros(1, 4), gamma=gamma, smooth=smooth)
        (slope,) = torch.autograd.grad(found, x)
        assert found.item() == 0
        assert (slope == 0).all()
    dim = leaf(torch.zeros(1, 3, 4))
    found = losses.dice(dim, torch.full((1, 4), -100), dim=1, smooth=0.0)  # all is ignored
    found.backward()
    assert found.item() == 0
    assert (dim.grad == 0).all()


def test_ignored_places_may_hold_anything():  # numerics 12
    x, y = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    whole, part = leaf(x), leaf(x[..., :4])
    y[:, 4] = -100
    with torch.no_grad():
        whole[:, 0, 4] = torch.nan
    found, exact = losses.dice(whole, y, dim=1), losses.dice(part, y[:, :4], dim=1)
    found.backward()
    exact.backward()
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(whole.grad[..., :4], part.grad)
    assert (whole.grad[..., 4] == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])
def test_focal_at_saturation(gamma, plain):  # numerics 6
    x = torch.tensor([[1e4, 0.0, 0.0], [-1e4, 0.0, 0.0], [104.0, 0.0, 0.0], [88.0, 0.0, 0.0]])
    y = torch.zeros(4, dtype=torch.long)
    call = lambda z: losses.categorical_focal(z, y, gamma=gamma, reduction="sum")  # noqa: E731
    z = leaf(x)
    slope = torch.func.grad(call)(x) if plain else torch.autograd.grad(call(z), z)[0]
    assert slope.isfinite().all()
    assert (slope[[0, 2]].abs() < 1e-40).all()
    torch.testing.assert_close(slope[1], torch.tensor([-1.0, 0.5, 0.5]))
    z = leaf(x)
    (first,) = torch.autograd.grad(call(z), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    assert second.isfinite().all()


def test_ignored_rows_and_torchs_layout():
    x, y = torch.randn(2, 3, 5, dtype=WIDE), torch.randint(3, (2, 5))
    found = losses.multi_margin(x, y, dim=1)
    exact = F.multi_margin_loss(x.movedim(1, -1).reshape(-1, 3), y.reshape(-1))
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=0)
    y[0, 1] = -100
    for name in ("poly", "categorical_focal"):
        loss, z = losses.FUNCTIONS[name], leaf(x)
        with torch.no_grad():
            z[0, :, 1] = torch.nan
        found = loss(z, y, dim=1)
        found.backward()
        kept = y != -100
        exact = loss(x.movedim(1, -1)[kept], y[kept])
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=0)
        assert (z.grad[0, :, 1] == 0).all()
