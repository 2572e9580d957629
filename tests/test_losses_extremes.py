"""Extreme inputs of every loss against mpmath at 50 digits, infinite ones and NaN."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from loss_table import Row
from test_losses_numbers import EACH, WIDE, amounts, leaf, loss_of, wide

from ravine import losses

UNDERFLOW = 5 * 2.0**-126
"""exp(-88) is subnormal in float32, and the kernels' exp gives 0 there: five classes of it."""


def ulp_of(found, exact, kind=torch.float32):
    """Return how many units of the last place a number is away from the exact one."""
    info = torch.finfo(kind)
    size = abs(exact)
    if math.isinf(found) and size > info.max * (1 + info.eps / 4) and (found > 0) == (exact > 0):
        return mpmath.mpf(0)
    place = mpmath.floor(mpmath.log(size, 2)) if size > 0 else mpmath.mpf(-1000)
    unit = mpmath.mpf(2) ** max(place, math.log2(info.smallest_normal)) * info.eps
    return abs(mpmath.mpf(found) - exact) / unit


def extremes(row: Row, kind: torch.dtype):
    """Yield input, target, and exact loss and slopes, at 50 digits."""
    largest = torch.finfo(kind).max
    for numbers, target in row.extremes:
        if any(abs(v) > largest for v in numbers):
            numbers = tuple(max(-6e4, min(6e4, v)) for v in numbers)  # noqa: PLW2901
        x = torch.tensor([numbers] if row.rows else numbers, dtype=kind)
        y = torch.tensor([target], dtype=torch.float32 if kind is not WIDE else WIDE)
        if row.rows and isinstance(target, int):
            y = y.long()
        seen = [mpmath.mpf(v) for v in x.flatten().tolist()]
        given = y[0].tolist() if row.rows else mpmath.mpf(y[0].item())
        with mpmath.workdps(50 if max(map(abs, seen)) < 1000 else 100):
            loss, slopes = row.exact(seen, given)
        yield x, y, loss, slopes


@EACH
@pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])
def test_extremes_to_the_last_digits(row, plain):  # numerics 3, 5, 20
    worst = [0.0, 0.0]
    for x, y, loss, slopes in extremes(row, torch.float32):
        x = leaf(x)  # noqa: PLW2901
        if plain:
            call = torch.func.grad_and_value(lambda z, y=y: loss_of(row, z, y, reduction="sum"))
            gradient, found = call(x)
        else:
            found = loss_of(row, x, y, reduction="sum")
            (gradient,) = torch.autograd.grad(found, x)
        if not abs(found.item() - loss) <= UNDERFLOW:
            worst[0] = max(worst[0], float(ulp_of(found.item(), loss)))
        # A slope that is the difference of a and p is exact to the last place of those; so are all
        # slopes of cross-entropy that autograd derives from the plain formula.
        cancels = "label_smoothing" in row.options or row.extra.get("kind") == "soft"
        cancels |= row.loss == "cross_entropy" and (plain or "class_weight" in row.options)
        cancels |= plain and row.loss in ("categorical_focal", "poly", "tweedie")
        near = 2.0**-23 if cancels else UNDERFLOW
        near *= 1 + row.options.get("epsilon", 0.0)  # poly: the factor of such a slope
        for got, exact in zip(gradient.flatten().tolist(), slopes, strict=True):
            if not abs(got - exact) <= near:
                worst[1] = max(worst[1], float(ulp_of(got, exact)))
    assert worst[0] <= row.ulp[0], worst
    assert worst[1] <= row.ulp[1], worst


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
@EACH
def test_slopes_near_certainty_in_half_precision(row, kind):  # numerics 3, 15
    for x, y, _, slopes in extremes(row, kind):
        x = leaf(x)  # noqa: PLW2901
        loss_of(row, x, y, reduction="sum").backward()
        for got, exact in zip(x.grad.flatten().tolist(), slopes, strict=True):
            if abs(exact) > torch.finfo(kind).max:
                assert math.isinf(got)
                continue
            unit = max(2.0**-24, abs(float(exact)) * torch.finfo(kind).eps * 0.501)
            unit = max(unit, 2.0**-23) if row.options or row.extra.get("kind") == "soft" else unit
            assert abs(got - float(exact)) <= unit + 2e-7 * abs(float(exact))


@EACH
@pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])
def test_infinite_input(row, plain):  # numerics 3
    for numbers, target, loss, slopes in row.infinite:
        if plain and row.rows:
            continue  # the references of row losses have no slope at infinite scores
        x = torch.tensor([numbers] if row.rows else numbers)
        y = torch.tensor([target])
        if plain:
            gradient, found = torch.func.grad_and_value(lambda z, y=y: loss_of(row, z, y))(x)
        else:
            x = leaf(x)
            found = loss_of(row, x, y)
            (gradient,) = torch.autograd.grad(found, x)
        assert found.item() == loss
        assert tuple(gradient.flatten().tolist()) == slopes


@EACH
@pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])
def test_nan_is_not_hidden(row, plain):
    x, y = row.samples((3,), torch.float32)
    x[1] = torch.nan
    call = torch.func.grad_and_value(lambda z: loss_of(row, z, y, reduction="sum"))
    if plain:
        gradient, found = call(x)
    else:
        x = leaf(x)
        found = loss_of(row, x, y, reduction="sum")
        (gradient,) = torch.autograd.grad(found, x)
    assert found.isnan()
    assert plain or gradient[1].isnan().any()  # autograd gives `where` no slope at NaN
    assert gradient[[0, 2]].isfinite().all()


@EACH
def test_float16_means_of_many_samples(row):  # numerics 13
    x, y = row.samples((70_001,), torch.float16)
    half, exact = leaf(x), leaf(x.double())
    found = loss_of(row, half, y)
    mean = row.oracle(exact, wide(y)).sum() / amounts(row, x, y).sum()
    (found * 2**16).backward()  # the loss scale of mixed precision must come before rounding
    (mean * 2**16).backward()
    assert found.item() == pytest.approx(mean.item(), rel=1e-6)
    torch.testing.assert_close(half.grad.double(), exact.grad, rtol=2.0**-11 + 1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2.0**-22)]
)
def test_asymmetric_just_above_a_small_margin(dtype, tolerance):
    """There 1 - c is almost 1, and has no digits of c."""
    x = torch.tensor([-27.0, -25.0, -20.0], dtype=dtype, requires_grad=True)
    found = losses.asymmetric(x, torch.zeros_like(x), gamma_neg=1.0, clip=1e-12, reduction="none")
    found.sum().backward()
    for logit, value, slope in zip(x.tolist(), found.tolist(), x.grad.tolist(), strict=True):
        with mpmath.workdps(40):
            p = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
            c = p - mpmath.mpf(1e-12)
            nats = -mpmath.log1p(-c)
            wanted = c * nats, p * (1 - p) * (nats + c / (1 - c))
        assert (value, slope) == pytest.approx(tuple(map(float, wanted)), rel=tolerance, abs=0)
