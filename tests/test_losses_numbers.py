"""Every loss of the table against its oracle: values, gradients, reductions, weights, extremes."""

from __future__ import annotations

import inspect

import pytest
import torch
from loss_table import ROWS, Row

from ravine import losses
from ravine.errors import EquationError
from ravine.losses.loss import elementwise_loss
from ravine.losses.samples import SampleLoss

EACH = pytest.mark.parametrize("row", ROWS, ids=str)
WIDE = torch.float64
# These have a table of their own: sample_loss_table.py.
SAMPLES = {name for name, found in losses.FUNCTIONS.items() if isinstance(found, SampleLoss)}
# Relative tolerance of value and slope, absolute one (the rounding of a slope near 0 or of float16).
KINDS = {
    torch.float64: (1e-12, 1e-12, 1e-13),
    torch.float32: (2e-6, 4e-6, 2e-7),
    torch.bfloat16: (2e-6, 2.0**-8 + 4e-6, 2e-7),
    torch.float16: (2e-6, 2.0**-11 + 4e-6, 2e-7),
}


def loss_of(row: Row, x, y, **more):
    options = dict(row.options)
    if "class_weight" in options:
        options["class_weight"] = torch.tensor(options["class_weight"], dtype=WIDE)
    return getattr(losses, row.loss)(x, y, *others_of(row, x, y), **options, **more)


def others_of(row: Row, x, y):
    """Return the tensors that a loss takes besides input and target."""
    made = row.extra.get("others")
    return (made(x, y if isinstance(y, torch.Tensor) else x),) if made else ()


def leaf(x):
    return x.detach().clone().requires_grad_()


def wide(y):
    return y.double() if y.is_floating_point() else y


def amounts(row: Row, x, y):
    """Return what each sample adds to what the mean divides by."""
    counts = y.is_floating_point() or "counts" in row.extra
    if row.rows and "class_weight" in row.options and not counts:
        return torch.tensor(row.options["class_weight"], dtype=WIDE)[y]
    return torch.ones(x.shape[:-1] if row.rows else x.shape, dtype=WIDE)


def test_every_loss_has_a_row():
    missing = losses.FUNCTIONS.keys() - {row.loss for row in ROWS} - SAMPLES
    assert not missing, f"tests/loss_table.py has no row for {sorted(missing)}"


def test_every_hyperparameter_is_varied_somewhere():
    for name, function in losses.FUNCTIONS.items():
        if name in SAMPLES:
            continue
        given = set().union(*(row.options for row in ROWS if row.loss == name))
        assert set(function.hyperparameters) - given <= {"ignore_index", "dim"}, name


@pytest.mark.parametrize("kind", KINDS, ids=str)
@EACH
def test_value_and_gradient_equal_the_oracle(row, kind):
    value, slope, tiny = KINDS[kind]
    x, y = row.samples((37,), kind)
    for reduction in ("none", "sum", "mean"):
        if reduction == "none" and kind is torch.float16:
            continue  # as bfloat16; each is a kernel to compile
        ours, theirs = leaf(x), leaf(x.double())
        found = loss_of(row, ours, y, reduction=reduction)
        exact = row.oracle(theirs, wide(y))
        if reduction == "mean" and row.mean is not None:
            exact = row.mean(theirs, wide(y))
        elif reduction == "mean":
            exact = exact.sum() / amounts(row, x, y).sum()
        elif reduction == "sum":
            exact = exact.sum()
        assert found.dtype is (WIDE if kind is WIDE else torch.float32)
        torch.testing.assert_close(found.double(), exact, rtol=value, atol=value)
        upstream = torch.rand(exact.shape, dtype=WIDE)
        found.backward(upstream.to(found.dtype))
        exact.backward(upstream)
        assert ours.grad.dtype is kind
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=slope, atol=tiny)


@EACH
def test_value_alone_is_the_same(row):
    x, y = row.samples((37,), WIDE)
    with_gradient = loss_of(row, leaf(x), y)
    torch.testing.assert_close(loss_of(row, x, y), with_gradient.detach(), rtol=1e-15, atol=0)
    with torch.no_grad():
        alone = loss_of(row, leaf(x), y)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, with_gradient.detach(), rtol=1e-15, atol=0)


@EACH
@pytest.mark.parametrize("per_row", [False, True])
def test_sample_weights(row, per_row):
    x, y = row.samples((6, 4), WIDE)
    weight = torch.rand(6 if per_row else (6, 4), dtype=WIDE)
    weight[2] = 0
    spread = weight[:, None].expand(6, 4) if per_row else weight
    for reduction in ("none", "sum", "mean"):
        ours, theirs = leaf(x), leaf(x)
        found = loss_of(row, ours, y, weight=weight, reduction=reduction)
        exact = row.oracle(theirs, y) * spread
        if reduction != "none":
            exact = exact.sum()
        if reduction == "mean":
            exact = exact / (spread * amounts(row, x, y)).sum()
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
        found.sum().backward()
        exact.sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-13)


@EACH
@pytest.mark.parametrize("plain", [False, True])
def test_weight_0_equals_leaving_the_sample_out(row, plain):  # numerics 12
    x, y = row.samples((9,), WIDE)
    weight = torch.rand(9, dtype=WIDE) + 0.1
    weight[[1, 4]] = 0
    kept = weight != 0
    some = leaf(x[kept])
    expected = loss_of(row, some, y[kept], weight=weight[kept])
    expected.backward()
    bad_x, bad_y = x.clone(), y.clone()
    bad_x[1], bad_x[4] = torch.nan, torch.inf
    if y.is_floating_point():
        bad_y[1] = torch.nan
    every = leaf(bad_x)
    if plain:
        gradient, found = torch.func.grad_and_value(
            lambda z: loss_of(row, z, bad_y, weight=weight)
        )(bad_x)
    else:
        found = loss_of(row, every, bad_y, weight=weight)
        found.backward()
        gradient = every.grad
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[kept], some.grad, rtol=1e-12, atol=1e-15)
    assert (gradient[~kept] == 0).all()


@EACH
def test_weights_that_are_all_0_give_0(row):  # numerics 1
    x, y = row.samples((3,), WIDE)
    x = leaf(x)
    found = loss_of(row, x, y, weight=torch.zeros(3, dtype=WIDE))
    found.backward()
    assert found.item() == 0
    assert (x.grad == 0).all()


@EACH
def test_normalizer_makes_the_mean_exact_under_accumulation(row):  # numerics 14
    x, y = row.samples((23,), WIDE)
    weight = torch.rand(23, dtype=WIDE)
    whole, parts = leaf(x), leaf(x)
    full = loss_of(row, whole, y, weight=weight)
    full.backward()
    amount = (weight * amounts(row, x, y)).sum()
    total = 0.0
    for piece in (slice(0, 3), slice(3, 16), slice(16, 23)):
        part = loss_of(row, parts[piece], y[piece], weight=weight[piece], normalizer=amount)
        part.backward()
        total += part.item()
    assert total == pytest.approx(full.item(), rel=1e-12)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-14)
    assert loss_of(row, x[:0], y[:0], normalizer=4.0).item() == 0


@EACH
def test_an_empty_sum_is_0(row):  # numerics 2
    x, y = row.samples((0,), WIDE)
    x = leaf(x)
    found = loss_of(row, x, y, reduction="sum")
    found.backward()
    assert found.item() == 0
    assert loss_of(row, x, y, reduction="none").shape == (0,)


@EACH
def test_modules_equal_their_functions(row):
    function = losses.FUNCTIONS[row.loss]
    module = losses.LOSSES[row.loss](**row.options)
    x, y = row.samples((5,), WIDE)
    assert torch.equal(module(x, y, *others_of(row, x, y)), loss_of(row, x, y))
    assert str(module).startswith(row.loss + "(")
    options = [*function.hyperparameters, "reduction", "check"]
    assert list(inspect.signature(type(module)).parameters) == options


def test_a_hyperparameter_may_be_called_scale():
    # What the reduction multiplies the slopes by goes through the same kernel.
    @elementwise_loss("Scaled")
    def scaled(x, y, *, scale=3.0):
        return scale * (x - y) ** 2, 2 * scale * (x - y)

    x, y = leaf(torch.randn(7, dtype=WIDE)), torch.randn(7, dtype=WIDE)
    expected = 5 * ((x - y) ** 2).mean()
    for found in (scaled(x, y, scale=5.0), scaled(x, y, scale=5.0, reduction="sum") / 7):
        torch.testing.assert_close(found, expected)
        slopes = torch.autograd.grad(found, x)
        torch.testing.assert_close(slopes, torch.autograd.grad(expected, x, retain_graph=True))


@pytest.mark.parametrize("parameters", ["x, y, *, {}=1.0", "x, y, {}"])
def test_a_name_that_no_loss_can_mean_itself(parameters):
    for name in ("weight", "reduction", "normalizer", "check", "input", "target", "self", "_scale"):
        scope: dict = {}
        exec(f"def mine({parameters.format(name)}): return x - y, 1.0", scope)
        with pytest.raises(EquationError) as caught:
            elementwise_loss("Mine")(scope["mine"])
        assert str(caught.value) == (
            f"loss 'mine' has the parameter {name!r}\n"
            "  expected: a name that is not taken\n"
            "  do:       call it otherwise; taken are _scale, check, input, normalizer, reduction, "
            "self, target, weight"
        )
