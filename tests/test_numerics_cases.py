"""The twenty cases that break known losses and regularisers, one test for each number.

16 and 19 are about the fused linear cross-entropy and stand in its tests. Each says in its name what
goes wrong elsewhere; whole families of inputs for the same cases are in the tests of each loss.
"""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F

from ravine import losses
from ravine.errors import ShapeError, TargetError
from ravine.losses import binary_cross_entropy, cross_entropy, mse
from ravine.regularize.dropout import Dropout

WIDE = torch.float64
KINDS = (torch.float32, torch.float16, torch.bfloat16)


def leaf(*numbers, dtype=torch.float32):
    return torch.tensor(numbers, dtype=dtype, requires_grad=True)


def found(name):
    """Return a loss, or skip the case where this Ravine does not have it."""
    if name not in losses.FUNCTIONS:
        pytest.skip(f"there is no loss {name}")
    return losses.FUNCTIONS[name]


def test_01_all_targets_ignored_is_0_with_a_gradient_of_0():
    x = torch.randn(3, 4, requires_grad=True)
    loss = cross_entropy(x, torch.full((3,), -100))
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()


def test_02_an_empty_batch_is_an_error_as_a_mean_and_0_as_a_sum():
    with pytest.raises(ShapeError, match="batch is empty"):
        mse(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ShapeError, match="batch is empty"):
        cross_entropy(torch.zeros(0, 3), torch.zeros(0).long())
    assert mse(torch.zeros(0), torch.zeros(0), reduction="sum").item() == 0
    assert cross_entropy(torch.zeros(0, 3), torch.zeros(0).long(), normalizer=8).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_03_infinite_and_huge_logits(kind):
    inf, big = math.inf, 6e4 if kind is torch.float16 else 1e9
    big = torch.tensor(big, dtype=kind).item()
    x = torch.tensor([[0.0, -inf, 0.0], [inf, 0, 0], [big, -big, 0]], dtype=kind)
    x.requires_grad_()
    loss = cross_entropy(x, torch.tensor([0, 0, 1]), reduction="none")
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([math.log(2), 0.0, 2 * big], rel=1e-6)
    assert x.grad.tolist() == [[-0.5, 0, 0.5], [0, 0, 0], [1, -1, 0]]
    smooth = cross_entropy(x.detach(), torch.tensor([0, 0, 0]), label_smoothing=0.1)
    assert not smooth.isnan()
    z = torch.tensor([inf, -inf, big, -big], dtype=kind).requires_grad_()
    loss = binary_cross_entropy(z, torch.tensor([1.0, 0.0, 0.0, 0.0]), reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [0, 0, big, 0]
    assert z.grad.tolist() == [0, 0, 1, 0]


def test_04_smoothing_with_ignored_rows_and_class_weights():
    x, y = torch.randn(4, 3, dtype=WIDE), torch.tensor([2, -100, 0, 1])
    weights, s = torch.tensor([0.5, 2.0, 1.0], dtype=WIDE), 0.3
    rows, divisor = [], 0.0
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        if target == -100:
            continue
        total = math.log(math.fsum(math.exp(v) for v in row))
        hot = [(1 - s) * (k == target) + s / 3 for k in range(3)]
        terms = (w * h * (total - v) for w, h, v in zip(weights.tolist(), hot, row, strict=True))
        rows.append(math.fsum(terms))
        divisor += weights[target].item()
    loss = cross_entropy(x, y, label_smoothing=s, class_weight=weights)
    assert loss.item() == pytest.approx(math.fsum(rows) / divisor, rel=1e-14)


def test_05_no_clamp_at_an_almost_impossible_label():
    x = leaf(-50.0, -150.0, 50.0)
    binary_cross_entropy(x, torch.tensor([1.0, 1.0, 0.0]), reduction="sum").backward()
    assert binary_cross_entropy(x, torch.tensor([1.0, 1.0, 0.0]), reduction="none").tolist() == [
        50.0,
        150.0,
        50.0,
    ]
    assert x.grad.tolist() == [-1.0, -1.0, 1.0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_06_focal_at_saturation(gamma):
    x = leaf(200.0, -200.0, 200.0, -200.0)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0])
    loss = found("focal")(x, y, gamma=gamma, alpha=None, reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 200, 200]
    assert x.grad.tolist() == [0, 0, 1, -1]


def test_07_divergence_at_target_0_and_below():
    loss = found("kl_divergence")
    x = leaf(math.log(0.5), math.log(0.5))
    loss(x, torch.tensor([0.0, 1.0]), reduction="sum").backward()
    assert x.grad.tolist() == [0.0, -1.0]
    with pytest.raises(TargetError):
        loss(x, torch.tensor([0.5, -0.1]))


def test_08_triplet_at_distance_0():
    anchor = torch.ones(2, 3, requires_grad=True)
    loss = found("triplet")(anchor, anchor.detach(), anchor.detach(), eps=0.0)
    loss.backward()
    assert loss.item() == 1.0
    assert anchor.grad.isfinite().all()


def test_09_a_column_against_a_vector_is_an_error():
    for name in ("mse", "huber", "hinge", "binary_cross_entropy"):
        with pytest.raises(ShapeError, match=r"input \(4, 1\), target \(4,\)"):
            losses.FUNCTIONS[name](torch.zeros(4, 1), torch.ones(4))


@pytest.mark.parametrize("rows", [4, 5000])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_10_a_class_out_of_range_is_told_with_its_position(rows, reduction):
    y = torch.zeros(rows).long()
    y[3] = 7
    for gradient in (False, True):
        x = torch.zeros(rows, 5, requires_grad=gradient)
        with pytest.raises(TargetError, match=rf"row 3 of {rows}[\s\S]*class 7[\s\S]*0 \.\. 4"):
            cross_entropy(x, y, reduction=reduction)


def test_11_an_ignored_class_that_exists_stays_in_the_denominator_of_the_softmax():
    x = torch.randn(3, 4, dtype=WIDE)
    loss = cross_entropy(x, torch.tensor([1, 2, 0]), ignore_index=2)
    wanted = (x.logsumexp(1) - torch.stack([x[0, 1], x[1, 2], x[2, 0]]))[[0, 2]].mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-14, atol=0)


def test_12_a_nan_in_an_ignored_row_stays_there():
    x = torch.randn(3, 4)
    x[1] = math.nan
    x.requires_grad_()
    cross_entropy(x, torch.tensor([1, -100, 0])).backward()
    assert x.grad.isfinite().all()
    assert (x.grad[1] == 0).all()
    z = leaf(1.0, math.nan)
    binary_cross_entropy(z, torch.ones(2), weight=torch.tensor([1.0, 0.0])).backward()
    assert z.grad[1] == 0
    assert z.grad[0].isfinite()


def test_13_the_mean_of_many_in_float16():
    count = 1 << 17  # 1 / count is not a normal float16
    x = torch.full((count,), 2.0, dtype=torch.float16, requires_grad=True)
    loss = mse(x, torch.zeros(count, dtype=torch.float16))
    assert loss.item() == 4.0
    (loss * count).backward()  # as a loss scale does
    assert (x.grad == 4.0).all()


def test_14_parts_of_unequal_size_add_up_to_the_mean_of_all():
    x, y = torch.randn(7, 5, dtype=WIDE), torch.tensor([0, -100, 2, 3, -100, 1, 1])
    parts = sum(cross_entropy(x[a:b], y[a:b], normalizer=5) for a, b in ((0, 2), (2, 7)))
    torch.testing.assert_close(parts, cross_entropy(x, y), rtol=1e-14, atol=0)


def test_15_the_slope_at_a_probability_near_1_in_bfloat16():
    x = torch.tensor([[7.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    cross_entropy(x, torch.tensor([0])).backward()
    exact = 1 / (1 + math.exp(7.0))
    assert x.grad[0, 0].item() == pytest.approx(-exact, rel=2**-8)
    assert x.grad[0, 1].item() == pytest.approx(exact, rel=2**-8)


def test_17_compiled_with_ignored_rows_and_second_derivatives():
    x, y = torch.randn(6, 4, dtype=WIDE), torch.tensor([0, -100, 3, 1, -100, 2])
    torch._dynamo.reset()
    compiled = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)
    ours = x.clone().requires_grad_()
    loss = compiled(ours, y)
    loss.backward()
    theirs = x.clone().requires_grad_()
    wanted = F.cross_entropy(theirs, y)
    (gradient,) = torch.autograd.grad(wanted, theirs, create_graph=True)
    torch.testing.assert_close(loss, wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(ours.grad, gradient.detach(), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(
        torch.func.hessian(lambda z: cross_entropy(z, y))(x),
        torch.func.hessian(lambda z: F.cross_entropy(z, y))(x),
        rtol=1e-12,
        atol=1e-14,
    )


def test_18_dropout_of_everything():
    x = torch.tensor([1.0, math.inf, -2.0], requires_grad=True)
    out = Dropout(1.0)(x)
    out.sum().backward()
    assert out.tolist() == [0, 0, 0]
    assert x.grad.tolist() == [0, 0, 0]


def test_20_confident_rows_keep_every_digit():
    loss = cross_entropy(torch.tensor([[17.0, 0.0, 0.0]]), torch.tensor([0]))
    with mpmath.workdps(50):
        exact = mpmath.log1p(2 * mpmath.exp(-17))
        assert abs(loss.item() - exact) < exact * 2**-23
        slope = -mpmath.exp(-17) / (1 + mpmath.exp(-17))
    x = leaf(17.0)
    binary_cross_entropy(x, torch.ones(1)).backward()
    assert abs(x.grad.item() - slope) < -slope * 2**-22


def test_20_log_cosh_does_not_overflow():
    wide = leaf(1e4)
    curve = found("log_cosh")(wide, torch.zeros(1))
    curve.backward()
    assert curve.item() == pytest.approx(1e4 - math.log(2), rel=2**-23)
    assert wide.grad.item() == 1
