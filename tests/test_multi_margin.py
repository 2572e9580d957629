"""The multi-class hinge losses over rows on the CPU: torch, class by class, hard rows, half types."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hinge_by_hand import HARD, INF, NAN, by_hand

from ravine.errors import TargetError
from ravine.losses import hinge, multi_margin
from ravine.losses.kernels.hinge_cpu import rows_hinge

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (7, 2), (5, 3), (3, 129), (2, 2100), (9000, 10)]
OPTIONS = [
    {}, {"p": 2}, {"margin": 0.25}, {"p": 2, "margin": 3.0}, {"margin": -0.5}, {"p": 2, "margin": 0},
]  # fmt: skip
LOSSES = [({}, "worst"), ({"p": 1}, "p=1"), ({"p": 2, "margin": 0.5}, "p=2")]
EACH = pytest.mark.parametrize("options", [o for o, _ in LOSSES], ids=[name for _, name in LOSSES])


def wide_of(kind):
    return kind if kind is torch.float64 else torch.float32


def slopes_of(x, *rest, loss=multi_margin, **options):
    x = x.clone().requires_grad_()
    found = loss(x, *rest, **options)
    found.backward(torch.ones_like(found))
    return found.detach(), x.grad


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_against_torch(shape, weighted):
    x = torch.randn(shape, dtype=torch.float64)
    y = torch.randint(shape[1], shape[:1])
    of_class = torch.rand(shape[1], dtype=torch.float64) if weighted else None
    for options in OPTIONS:
        got = slopes_of(x, y, class_weight=of_class, **options)
        want = slopes_of(x, y, weight=of_class, loss=F.multi_margin_loss, **options)
        torch.testing.assert_close(got[0], want[0], rtol=1e-14, atol=0)
        torch.testing.assert_close(got[1], want[1], rtol=1e-13, atol=1e-18)
        with torch.no_grad():
            assert torch.equal(multi_margin(x, y, class_weight=of_class, **options), got[0])


@pytest.mark.parametrize("kind", TYPES, ids=str)
@EACH
def test_class_by_class(options, kind):
    """Also that slopes of half types are rounded once: 0.501 of the last place."""
    wide = wide_of(kind)
    last = torch.finfo(kind).eps if kind is not wide else 0
    lowest = torch.finfo(kind).smallest_normal * last
    for rows, classes in SHAPES[1:4]:
        x, y = (2 * torch.randn(rows, classes)).to(kind), torch.randint(classes, (rows,))
        factor, of_class = torch.rand(rows, dtype=wide) + 0.5, torch.rand(classes, dtype=wide)
        factor[0] = 0
        given = {**options, "times": of_class} if "p" in options else options
        gradient = torch.full_like(x, NAN)
        losses = rows_hinge(x, y, factor, 0.75, gradient, **given)
        want, slopes = by_hand(x, y, factor, **given)
        near = 8 * torch.finfo(wide).eps
        torch.testing.assert_close(losses.double(), want, rtol=near, atol=near)
        atol = 0.501 * lowest + near / classes
        slopes *= 0.75
        torch.testing.assert_close(gradient.double(), slopes, rtol=0.501 * last + near, atol=atol)
        assert torch.equal(rows_hinge(x, y, factor, 0.75, None, **given), losses)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@EACH
def test_hard_rows(options, kind):
    x = HARD.to(kind)
    for y in range(3):
        target = torch.full((len(x),), y)
        gradient = torch.full_like(x, 7.0)
        losses = rows_hinge(x, target, None, 1.0, gradient, **options)
        want, slopes = by_hand(x, target, **options)
        torch.testing.assert_close(losses, want.to(losses.dtype), rtol=1e-6, atol=0, equal_nan=True)
        torch.testing.assert_close(
            gradient, slopes.to(wide_of(kind)).to(kind), rtol=1e-6, atol=0, equal_nan=True
        )


@EACH
def test_a_row_left_out_may_hold_anything(options):
    loss = multi_margin if options else hinge
    x, y = torch.randn(len(HARD) + 2, 3), torch.randint(3, (len(HARD) + 2,))
    x[1:-1] = HARD
    weight = torch.zeros(len(x))
    weight[[0, -1]] = torch.tensor([0.5, 2.0])
    got = slopes_of(x, y, loss=loss, weight=weight, **options)
    want = slopes_of(x[[0, -1]], y[[0, -1]], loss=loss, weight=weight[[0, -1]], **options)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1][[0, -1]], want[1])
    assert not got[1][1:-1].any()


@EACH
def test_a_class_that_is_out_of_range(options):
    loss = multi_margin if options else hinge
    x, y = torch.randn(4, 3), torch.tensor([0, 3, -1, 2])
    with pytest.raises(TargetError, match="row 1 of 4"):
        loss(x, y, **options)
    losses, slopes = slopes_of(x, y, loss=loss, reduction="none", check="off", **options)
    assert losses.isnan().tolist() == [False, True, True, False]
    if options:  # Crammer and Singer's slopes are 0 where class 0 would be far enough away
        assert slopes.isnan().all(1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_scores_that_are_not_contiguous(kind):
    whole = torch.randn(6, 4, 5).to(kind)
    x, y = whole.transpose(1, 2), torch.randint(4, (6, 5))
    got = slopes_of(x, y, p=2)
    want = slopes_of(x.contiguous(), y, p=2)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    assert torch.equal(multi_margin(whole, y, p=2, dim=1), got[0])


@pytest.mark.parametrize("target", [0, 1, 1023, 1024, 2099])
def test_sums_of_many_classes(target):
    """Beside a rival that is 1e6 away no other one is lost."""
    x = torch.zeros(1, 2100)
    x[0, (target + 1) % 2100] = 1e6
    losses, slopes = slopes_of(x, torch.tensor([target]), reduction="none")
    assert losses.item() == pytest.approx((1e6 + 2099) / 2100, rel=1e-7)
    assert slopes[0, target].item() == pytest.approx(-2099 / 2100, rel=1e-7)
    assert (slopes != 0).all()


@pytest.mark.parametrize("rival", [0, 126, 127, 128, 255, 256, 299])
def test_the_worst_of_many_rivals(rival):
    for target in (rival - 1, rival + 1, 129):
        x, y = torch.randn(1, 300), torch.tensor([target % 300])
        x[0, rival] = x[0, y] = 9.0
        losses, slopes = slopes_of(x, y, loss=hinge, reduction="none")
        assert losses.item() == 1
        assert slopes.nonzero()[:, 1].tolist() == sorted([rival, int(y)])
        assert slopes[0, rival] == 1


@EACH
def test_a_class_alone_has_no_rival(options):
    whole = torch.full((6,), 7.0)
    x = torch.tensor([1.0, INF, -INF, NAN])[:, None]
    target = torch.zeros(4, dtype=torch.int64)
    losses = rows_hinge(x, target, None, 1.0, whole[1:-1, None], **options)
    assert losses[:2].tolist() == [0, 0]
    assert whole.tolist() == [7, 0, 0, 0, 0, 7]


def test_the_worst_rival_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    x, y = torch.randn(200, 7, dtype=torch.float64), torch.randint(7, (200,))
    weight = torch.rand(200, dtype=torch.float64)
    given = {"labels": range(7), "sample_weight": weight.numpy()}
    want = metrics.hinge_loss(y.numpy(), x.numpy(), **given)
    assert hinge(x, y, weight=weight).item() == pytest.approx(want, rel=1e-14)
