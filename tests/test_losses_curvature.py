"""Curvatures, further tensors, and the constants that losses are least for."""

from __future__ import annotations

import math

import pytest
import torch
from names import named
from sklearn._loss import loss as sk

from ravine import losses
from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError, TargetError

WIDE = torch.float64
SHARED = [
    ("mse", {}, sk.HalfSquaredError(), 2.0),
    ("mae", {}, sk.AbsoluteError(), 1.0),
    ("quantile", {"q": 0.3}, sk.PinballLoss(quantile=0.3), 1.0),
    ("huber", {"delta": 0.8}, sk.HuberLoss(delta=0.8), 1.0),
    ("poisson", {}, sk.HalfPoissonLoss(), 1.0),
    ("gamma", {}, sk.HalfGammaLoss(), 1.0),
    ("binary_cross_entropy", {}, sk.HalfBinomialLoss(), 1.0),
    *(("tweedie", {"power": p}, sk.HalfTweedieLoss(power=p), 1.0) for p in (-1, 0, 1, 1.5, 2, 3)),
]


def samples(name, count=50):
    x, y = torch.randn(count, dtype=WIDE), torch.rand(count, dtype=WIDE)
    return x, y if name == "binary_cross_entropy" else 3 * y + 0.1


@pytest.mark.parametrize(("name", "options", "other", "factor"), SHARED, ids=named)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_gradient_and_hessian_equal_scikit_learn(name, options, other, factor, weighted):
    x, y = samples(name)
    weight = torch.rand(50, dtype=WIDE) if weighted else None
    function = losses.FUNCTIONS[name]
    z = x.clone().requires_grad_()
    value = function(z, y, weight=weight, reduction="none", **options)
    (slope,) = torch.autograd.grad(value.sum(), z)
    curvature = function.curvature(x, y, weight=weight, **options)
    given = {"y_true": y.numpy(), "raw_prediction": x.numpy()}
    given["sample_weight"] = None if weight is None else weight.numpy()
    exact = [torch.from_numpy(other.loss(**given)) * factor]
    exact += [torch.from_numpy(part) * factor for part in other.gradient_hessian(**given)]
    if name in ("mae", "quantile"):
        exact[2] = torch.zeros_like(x)  # scikit-learn puts 1 in its place, so that Newton can go on
    for found, wanted in zip((value, slope, curvature), exact, strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "options"), [row[:2] for row in SHARED], ids=named)
def test_curvature_is_the_derivative_of_the_slope(name, options):
    x, y = samples(name)
    function = losses.FUNCTIONS[name]
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(z, y, reduction="sum", **options), z, create_graph=True)
    second = torch.zeros_like(x)
    if slope.requires_grad:
        (second,) = torch.autograd.grad(slope.sum(), z)
    torch.testing.assert_close(function.curvature(x, y, **options), second, rtol=1e-12, atol=1e-14)
    plain = function.curvature(z, y, **options)
    torch.testing.assert_close(plain.detach(), second, rtol=1e-12, atol=1e-14)
    single = function.curvature(x.float(), y.float(), **options)
    assert single.dtype is torch.float32
    torch.testing.assert_close(single.double(), second, rtol=2e-6, atol=1e-6)


def test_a_loss_without_curvature_says_so():
    with pytest.raises(ArgumentError, match="hinge: its equation returns no curvature"):
        losses.squared_hinge.curvature(torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize("kind", [WIDE, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_subset_of_what_gaussian_nll_differentiates(kind, reduction):
    x, y, v = (torch.rand(20, dtype=WIDE).add(0.25).to(kind) for _ in range(3))
    wide = [x.double().clone().requires_grad_(), v.double().clone().requires_grad_()]
    torch.nn.functional.gaussian_nll_loss(
        wide[0], y.double(), wide[1], reduction=reduction
    ).sum().backward()
    close = {WIDE: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[kind]
    for mean in (True, False):
        for variance in (True, False):
            a, b = x.clone().requires_grad_(mean), v.clone().requires_grad_(variance)
            found = losses.gaussian_nll(a, y, var=b, reduction=reduction)
            assert found.requires_grad is (mean or variance)
            if not found.requires_grad:
                continue
            found.sum().backward()
            for ours, theirs in ((a, wide[0]), (b, wide[1])):
                assert (ours.grad is None) is not ours.requires_grad
                if ours.grad is not None:
                    assert ours.grad.dtype is kind
                    torch.testing.assert_close(
                        ours.grad.double(), theirs.grad, rtol=close, atol=close
                    )


def test_gaussian_nll_in_both_orders_and_below_eps():
    x, y, v = (torch.rand(4, dtype=WIDE) + 0.25 for _ in range(3))
    leaves = x.requires_grad_(), v.requires_grad_()
    call = lambda a, b: losses.gaussian_nll(a, y, b)  # noqa: E731
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)
    low = torch.zeros(4, dtype=WIDE, requires_grad=True)
    found = losses.gaussian_nll(x.detach(), y, low, eps=0.5)
    found.backward()
    assert (low.grad == 0).all()
    exact = losses.gaussian_nll(x.detach(), y, torch.full_like(low, 0.5))
    assert found.item() == pytest.approx(exact.item(), rel=1e-14)
    half = torch.tensor([1.0, 0.0], dtype=WIDE)
    bad = torch.tensor([0.5, -1.0], dtype=WIDE)
    kept = losses.gaussian_nll(half, half + 1, bad, weight=half)
    alone = losses.gaussian_nll(half[:1], half[:1] + 1, bad[:1])
    assert kept.item() == pytest.approx(alone.item(), rel=1e-14)


def test_what_gaussian_nll_refuses():
    x = torch.zeros(2)
    with pytest.raises(TargetError) as caught:
        losses.gaussian_nll(x, x, torch.tensor([1.0, -1.0]))
    assert str(caught.value) == (
        "gaussian_nll: an element of var is outside of what the loss is defined for\n"
        "  where:    var[1]\n  got:      -1.0\n  expected: a finite variance >= 0"
    )
    with pytest.raises(ArgumentTypeError) as caught:
        losses.gaussian_nll(x, x)
    assert str(caught.value) == (
        "gaussian_nll: the tensors are not the ones that it takes\n"
        "  got:      2\n  expected: 3: input, target, var"
    )
    with pytest.raises(ArgumentTypeError, match="expected: 2: input, target"):
        losses.mse(x, x, x)
    with pytest.raises(ShapeError, match="input and var differ in shape"):
        losses.gaussian_nll(x, x, var=torch.ones(1))


BOUNDS = [
    ("smooth_l1", "beta", -1.0, "0, or a finite number >= 1e-30"),
    ("quantile", "q", 1, "a number between 0 and 1, both exclusive"),
    ("poisson", "full", 1, "True or False"),
    ("poisson", "eps", -1e-8, "a finite number >= 0"),
    ("gaussian_nll", "eps", 0, "a finite number > 0"),
    (
        "tweedie",
        "power",
        0.5,
        "a finite number that is not between 0 and 1, where there is no distr",
    ),
    ("focal", "gamma", -1, "a finite number >= 0"),
    ("focal", "alpha", 1.5, "a number from 0 to 1, or None"),
    ("kl_divergence", "log_target", "yes", "True or False"),
    ("asymmetric", "clip", 1, "a number from 0 to 1, without 1"),
]


@pytest.mark.parametrize(("name", "option", "bad", "words"), BOUNDS)
def test_bounds(name, option, bad, words):
    with pytest.raises(ArgumentError) as caught:
        losses.LOSSES[name](**{option: bad})
    start = f"{name}: {option} has a value that cannot be used\n  got:      {bad!r}\n  expected: "
    assert str(caught.value).startswith(start + words)


Y = torch.tensor([0.1, 0.2, 0.4, 0.7, 0.9, 0.95, 3.0], dtype=WIDE)
LEAST = [
    ("mse", {}, Y, Y.mean()),
    ("mae", {}, Y, Y.median()),
    ("quantile", {"q": 0.8}, Y, torch.quantile(Y, 5 / 6)),
    ("poisson", {}, Y, Y.mean().log()),
    ("gamma", {}, Y, Y.mean().log()),
    ("tweedie", {}, Y, Y.mean().log()),
    ("binary_cross_entropy", {}, Y[:-1], torch.logit(Y[:-1].mean())),
]


@pytest.mark.parametrize(("name", "options", "y", "best"), LEAST, ids=str)
def test_the_best_constant(name, options, y, best):
    call = losses.FUNCTIONS[name]
    at = lambda c: call(torch.full_like(y, float(c)), y, **options).item()  # noqa: E731
    assert all(at(best) < at(best + step) for step in (-1e-3, 1e-3, -0.5, 0.5))
    assert math.isfinite(at(best))
