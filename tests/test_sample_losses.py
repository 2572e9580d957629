"""Losses of whole samples against their oracles: values, slopes, weights, transforms, types."""

from __future__ import annotations

import itertools

import pytest
import torch
from sample_loss_table import SAMPLE_ROWS, SampleRow

from ravine import losses
from ravine.losses.samples import SampleLoss

EACH = pytest.mark.parametrize("row", SAMPLE_ROWS, ids=str)
WIDE = torch.float64
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def loss_of(row: SampleRow, *tensors, **more):
    return losses.FUNCTIONS[row.loss](*tensors, **row.options, **more)


def leaves(tensors, kind=None):
    """Return copies; what is of a float type and no target may be differentiated by."""
    made = [
        t.detach().clone().to(kind if kind and t.is_floating_point() else t.dtype) for t in tensors
    ]
    for t in made:
        t.requires_grad_(t.is_floating_point())
    return made


def slopes(tensors):
    return [t.grad for t in tensors if t.requires_grad]


def test_every_loss_and_every_hyperparameter_is_in_the_table():
    known = {n: f for n, f in losses.FUNCTIONS.items() if isinstance(f, SampleLoss)}
    assert known.keys() == {row.loss for row in SAMPLE_ROWS}
    for name, function in known.items():
        given = set().union(*(row.options for row in SAMPLE_ROWS if row.loss == name))
        assert set(function.hyperparameters) == given, name


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@EACH
def test_value_and_gradient_equal_the_oracle(row, reduction):
    tensors = row.samples(7, WIDE)
    ours, theirs = leaves(tensors, WIDE), leaves(tensors, WIDE)
    found, exact = loss_of(row, *ours, reduction=reduction), row.oracle(*theirs)
    if reduction != "none":
        exact = getattr(exact, reduction)()
    torch.testing.assert_close(found, exact, **CLOSE)
    upstream = torch.rand(exact.shape, dtype=WIDE)
    found.backward(upstream)
    exact.backward(upstream)
    for mine, right in zip(slopes(ours), slopes(theirs), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@EACH
def test_narrow_types_are_computed_in_float32(row, kind):
    tensors = row.samples(5, kind)
    ours, theirs = leaves(tensors), leaves(tensors, WIDE)
    found, exact = loss_of(row, *ours), row.oracle(*theirs).mean()
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    found.backward()
    exact.backward()
    for mine, right in zip(slopes(ours), slopes(theirs), strict=True):
        near = torch.finfo(mine.dtype).eps + 3e-5
        torch.testing.assert_close(mine.double(), right, rtol=near, atol=3e-6)


@EACH
def test_gradcheck_of_both_orders_and_by_weights(row):
    tensors = leaves(row.samples(3, WIDE), WIDE)
    call = lambda *z: loss_of(row, *z, reduction="none")  # noqa: E731
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors, atol=1e-4)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=WIDE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: loss_of(row, *tensors, weight=w), (weight,))


@EACH
def test_every_subset_of_requires_grad(row):  # numerics 16
    tensors = row.samples(4, WIDE)
    every = leaves(tensors, WIDE)
    loss_of(row, *every).backward()
    floats = [k for k, t in enumerate(every) if t.requires_grad]
    for wanted in itertools.product([False, True], repeat=len(floats)):
        some = leaves(tensors, WIDE)
        for k, flag in zip(floats, wanted, strict=True):
            some[k].requires_grad_(flag)
        found = loss_of(row, *some)
        assert found.requires_grad is any(wanted)
        if any(wanted):
            found.backward()
        for k, flag in zip(floats, wanted, strict=True):
            if flag:
                torch.testing.assert_close(some[k].grad, every[k].grad, **CLOSE)
            else:
                assert some[k].grad is None


@pytest.mark.parametrize("plain", [False, True])
@EACH
def test_weight_0_equals_leaving_the_sample_out(row, plain):  # numerics 12
    tensors = row.samples(6, WIDE)
    weight = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.0, 0.25], dtype=WIDE)
    kept = weight != 0
    some = leaves([t[kept] for t in tensors], WIDE)
    exact = (row.oracle(*some) * weight[kept]).sum() / weight.sum()
    exact.backward()
    for bad in (torch.nan, torch.inf, 1.0):
        every = leaves(tensors, WIDE)
        with torch.no_grad():
            for t in every:
                if t.is_floating_point():
                    t[~kept] = bad
        if plain:
            places = tuple(k for k, t in enumerate(every) if t.requires_grad)
            call = lambda *z: loss_of(row, *z, weight=weight)  # noqa: E731
            found = call(*every)
            got = torch.func.grad(call, argnums=places)(*(t.detach() for t in every))
        else:
            found = loss_of(row, *every, weight=weight)
            found.backward()
            got = slopes(every)
        torch.testing.assert_close(found, exact, **CLOSE)
        for mine, right in zip(got, slopes(some), strict=True):
            torch.testing.assert_close(mine[kept], right, rtol=1e-10, atol=1e-12)
            assert (mine[~kept] == 0).all()


@EACH
def test_weights_normalizer_and_empty_batches(row):
    tensors = row.samples(4, WIDE)
    x = leaves(tensors, WIDE)
    nothing = loss_of(row, *x, weight=torch.zeros(4, dtype=WIDE))
    nothing.backward()
    assert nothing.item() == 0
    assert all((g == 0).all() for g in slopes(x))
    total = loss_of(row, *tensors, reduction="sum")
    torch.testing.assert_close(loss_of(row, *tensors, normalizer=8.0), total / 8, **CLOSE)
    empty = [t[:0] for t in tensors]
    assert loss_of(row, *empty, reduction="sum").item() == 0
    assert loss_of(row, *empty, reduction="none").shape == (0,)
    with pytest.raises(ValueError, match="the batch is empty"):
        loss_of(row, *empty)
    if row.alone:  # numerics 14
        parts = [loss_of(row, *(t[s] for t in tensors), normalizer=4) for s in ([0], [1, 2, 3])]
        torch.testing.assert_close(sum(parts), loss_of(row, *tensors), **CLOSE)


@EACH
def test_transforms_equal_autograd(row):  # numerics 17
    tensors = row.samples(4, WIDE)
    every = leaves(tensors, WIDE)
    loss_of(row, *every).backward()
    call = lambda *z: loss_of(row, *z)  # noqa: E731
    floats = tuple(k for k, t in enumerate(every) if t.requires_grad)
    wide = [t.detach() for t in every]
    for k, mine in zip(floats, torch.func.grad(call, argnums=floats)(*wide), strict=True):
        torch.testing.assert_close(mine, every[k].grad, **CLOSE)
    direction = torch.randn_like(wide[0])
    _, slope = torch.func.jvp(lambda z: call(z, *wide[1:]), (wide[0],), (direction,))
    torch.testing.assert_close(slope, (every[0].grad * direction).sum(), **CLOSE)
    # Two batches side by side, each of two samples.
    stacked = [t.reshape(2, 2, *t.shape[1:]) for t in wide]
    both = torch.func.vmap(call)(*stacked)
    torch.testing.assert_close(both[1], call(*(t[1] for t in stacked)), **CLOSE)
    each = torch.func.vmap(torch.func.grad(call))(*stacked)
    torch.testing.assert_close(each[1], torch.func.grad(call)(*(t[1] for t in stacked)), **CLOSE)


@EACH
def test_compile_and_modules(row):
    tensors = row.samples(4, WIDE)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=WIDE)
    exact = loss_of(row, *tensors, weight=weight)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *z: loss_of(row, *z, weight=weight), backend="eager")
    torch.testing.assert_close(compiled(*tensors), exact, **CLOSE)
    module = losses.LOSSES[row.loss](**row.options)
    torch.testing.assert_close(module(*tensors, weight=weight), exact, **CLOSE)
    names = losses.FUNCTIONS[row.loss].inputs
    named = dict(zip(names, tensors, strict=True))
    torch.testing.assert_close(module(**named, weight=weight), exact, **CLOSE)
    assert str(module).startswith(f"{row.loss}(")
