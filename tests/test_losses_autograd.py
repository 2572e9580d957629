"""Every way to ask a loss for derivatives gives the same numbers: kernels, transforms, higher orders."""

from __future__ import annotations

import pytest
import torch
from loss_table import ROWS
from test_losses_numbers import EACH, WIDE, leaf, loss_of

from ravine import losses

BIG = 300_000  # float32 numbers: more than 1 MB, more than the threads' threshold


def smooth(row, shape=(4,)):
    """Return samples that keep away from kinks."""
    x, y = row.samples(shape, WIDE)
    return x + 0.01234, y


def gradient_of(row, x, y, **more):
    x = leaf(x)
    loss_of(row, x, y, **more).sum().backward()
    return x.grad


@EACH
def test_gradcheck_of_both_orders(row):
    x, y = smooth(row, (3,))
    for reduction in ("mean", "none"):
        call = lambda z, r=reduction: loss_of(row, z, y, reduction=r)  # noqa: E731
        assert torch.autograd.gradcheck(call, leaf(x))
        assert torch.autograd.gradgradcheck(call, leaf(x))


@EACH
def test_gradcheck_by_sample_weights_at_0_too(row):
    x, y = smooth(row)
    weight = torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=WIDE, requires_grad=True)
    for reduction in ("mean", "sum", "none"):
        call = lambda w, z, r=reduction: loss_of(row, z, y, weight=w, reduction=r)  # noqa: E731
        assert torch.autograd.gradcheck(call, (weight, leaf(x)))
    zero = torch.zeros(4, dtype=WIDE, requires_grad=True)
    loss_of(row, x, y, weight=zero, reduction="sum").backward()
    torch.testing.assert_close(zero.grad, row.oracle(x, y), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.loss not in ("hinge", "squared_hinge", "perceptron")], ids=str
)
def test_gradient_by_the_target_equals_torch(row):
    x, y = row.samples((6,), WIDE)
    if not y.is_floating_point():
        return
    ours, theirs = leaf(y), leaf(y)
    loss_of(row, x, ours, reduction="sum").backward()
    row.oracle(x, theirs).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-13)
    inside = leaf(y.clamp(0.1, 0.9))
    assert torch.autograd.gradcheck(lambda z, t: loss_of(row, z, t), (leaf(x), inside))


def test_binary_cross_entropy_at_logit_0_and_targets_0_and_1():
    x = torch.zeros(3, dtype=WIDE)
    y = torch.tensor([0.0, 1.0, 0.5], dtype=WIDE)
    call = lambda z, t: losses.binary_cross_entropy(z, t, reduction="sum")  # noqa: E731
    torch.testing.assert_close(torch.func.grad(call)(x, y), 0.5 - y, rtol=0, atol=0)
    hessian = torch.func.hessian(call)(x, y)
    torch.testing.assert_close(hessian, torch.eye(3, dtype=WIDE) / 4, rtol=0, atol=0)
    torch.testing.assert_close(
        torch.func.grad(call, argnums=1)(x + 2, y), torch.full((3,), -2.0, dtype=WIDE)
    )


@EACH
@pytest.mark.parametrize("weighted", [False, True])
def test_transforms_equal_the_kernel(row, weighted):  # numerics 17
    x, y = smooth(row)
    weight = torch.tensor([0.3, 1.0, 0.0, 0.7], dtype=WIDE) if weighted else None
    exact = gradient_of(row, x, y, weight=weight)
    close = {"rtol": 1e-12, "atol": 1e-14}

    def call(z):
        return loss_of(row, z, y, weight=weight)

    torch.testing.assert_close(torch.func.grad(call)(x), exact, **close)
    direction = torch.randn_like(x)
    _, slope = torch.func.jvp(call, (x,), (direction,))
    torch.testing.assert_close(slope, (exact * direction).sum(), **close)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        slope = torch.autograd.forward_ad.unpack_dual(call(dual)).tangent
    torch.testing.assert_close(slope, (exact * direction).sum(), **close)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: loss_of(row, z, y, weight=weight, reduction="none"), x
    )
    together = torch.autograd.functional.jacobian(
        lambda z: loss_of(row, z, y, weight=weight, reduction="none"), x, vectorize=True
    )
    torch.testing.assert_close(together, jacobian, **close)
    hessian = torch.func.hessian(call)(x)
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(call, x), **close)
    z = leaf(x)
    (first,) = torch.autograd.grad(call(z), z, create_graph=True)
    torch.testing.assert_close(first.detach(), exact, **close)
    if first.requires_grad:
        (product,) = torch.autograd.grad((first * direction).sum(), z)
        wanted = (hessian.reshape(x.numel(), -1) @ direction.reshape(-1)).reshape(x.shape)
        torch.testing.assert_close(product, wanted, rtol=1e-11, atol=1e-13)


@EACH
def test_gradients_of_single_samples_under_vmap(row):
    x, y = smooth(row)
    weight = torch.tensor([0.3, 1.0, 0.0, 0.7], dtype=WIDE)
    options = {"reduction": "sum"}
    each = torch.func.vmap(torch.func.grad(lambda z, t: loss_of(row, z, t, **options)))(x, y)
    torch.testing.assert_close(each, gradient_of(row, x, y, **options), rtol=1e-12, atol=1e-14)
    each = torch.func.vmap(torch.func.grad(lambda z, t, w: loss_of(row, z, t, weight=w)))(
        x, y, weight
    )
    single = [gradient_of(row, x[k], y[k], weight=weight[k]) for k in range(4)]
    torch.testing.assert_close(each, torch.stack(single), rtol=1e-12, atol=1e-14)


@EACH
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_a_second_way_back_gives_the_same_bits(row, kind):
    if kind is torch.bfloat16 and row.loss in ("huber", "hinge"):
        return  # the same code as for mse, and four kernels to compile
    x, y = row.samples((50,), kind)
    for reduction in ("mean", "none"):
        z = leaf(x)
        found = loss_of(row, z, y, reduction=reduction)
        upstream = torch.rand(found.shape)
        first, second, third = (
            torch.autograd.grad(found, z, upstream, retain_graph=k < 2)[0] for k in range(3)
        )
        assert torch.equal(first, second)
        assert torch.equal(first, third)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(found, z, upstream)


@EACH
def test_input_changed_in_place_is_noticed(row):
    x, y = row.samples((5,), torch.float32)
    z = leaf(x) * 1
    found = loss_of(row, z, y)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


@EACH
def test_every_subset_of_requires_grad(row):  # numerics 16
    x, y = row.samples((5,), WIDE)
    scale = torch.tensor(1.5, dtype=WIDE)
    exact = gradient_of(row, x * scale, y)
    for frozen in (True, False):
        for head in (True, False):
            a, b = x.clone().requires_grad_(not frozen), scale.clone().requires_grad_(head)
            found = loss_of(row, a * b, y)
            assert found.requires_grad is (head or not frozen)
            if not found.requires_grad:
                continue
            found.backward()
            if not frozen:
                torch.testing.assert_close(a.grad, exact * 1.5, rtol=1e-12, atol=1e-14)
            if head:
                torch.testing.assert_close(b.grad, (exact * x).sum(), rtol=1e-12, atol=1e-14)
