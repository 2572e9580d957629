"""Dice and Tversky losses of two classes in two passes: against plain PyTorch in float64."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ravine.losses import dice, sample_pass, tversky

LOSSES = {"dice": (dice, {}), "tversky": (tversky, {"alpha": 0.3, "beta": 0.7, "gamma": 1.3})}
EACH = pytest.mark.parametrize("loss", LOSSES)
KINDS = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.bfloat16: 2.0**-8 + 2e-6,
    torch.float16: 2.0**-11 + 2e-6,
}
TARGETS = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]
SHAPES = [(3, 1, 37, 41), (2, 70_001), (1, 5), (2000, 3)]  # a part of a chunk, several, few, many


@pytest.fixture(autouse=True)
def passes(monkeypatch):
    """Return the elements of each pass that was run."""
    found = []
    run = sample_pass.SamplePass.__call__

    def noted(self, tensors, numbers):
        found.append(tensors[0].numel())
        return run(self, tensors, numbers)

    monkeypatch.setattr(sample_pass.SamplePass, "__call__", noted)
    return found


def masks(shape, kind, target):
    generator = torch.Generator().manual_seed(shape[-1])
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 4).to(kind)
    y = torch.rand(shape, generator=generator) > 0.6
    return x.requires_grad_(), y.to(target)


def exactly(loss, x, y, options, monkeypatch, factor=1.0):
    """Return loss and gradient by plain PyTorch in float64."""
    x = x.detach().double().requires_grad_()
    with monkeypatch.context() as patch:
        patch.setattr(sample_pass.SamplePass, "serves", lambda self, input: False)
        found = loss(x, y.double() if y.is_floating_point() else y, **options)
        (found * factor).sum().backward()
    return found.detach(), x.grad


@EACH
@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_value_and_gradient(loss, kind, target, passes, monkeypatch):
    loss, options = LOSSES[loss]
    for shape in SHAPES:
        x, y = masks(shape, kind, target)
        factor = 512.0 if kind is torch.float16 else 3.0
        found = loss(x, y, **options)
        (found * factor).backward()
        assert bool(passes) == (shape != (2000, 3))
        passes.clear()
        exact, slope = exactly(loss, x, y, options, monkeypatch, factor)
        wide = torch.float64 if kind is torch.float64 else torch.float32
        torch.testing.assert_close(found, exact.to(wide), rtol=min(KINDS[kind], 3e-7), atol=0)
        # float16 has subnormals
        tiny = 2.0**-25 if kind is torch.float16 else 0.0
        torch.testing.assert_close(x.grad.double(), slope, rtol=KINDS[kind], atol=tiny)


@EACH
def test_shares_weights_and_places_left_out(loss, passes, monkeypatch):
    loss, options = LOSSES[loss]
    x, y = masks((5, 60, 70), torch.float64, torch.float64)
    y = torch.rand_like(y)
    y[0, 3:7], y[2] = -100.0, -100.0
    weight = torch.tensor([0.5, 0.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    options = {**options, "weight": weight, "reduction": "none"}
    exact, slope = exactly(loss, x, y, options, monkeypatch)
    with torch.no_grad():
        x[0, 3:7], x[1], x[3, 0, 0], x[2] = torch.nan, torch.nan, torch.inf, -torch.inf
        y[1], y[3, 5] = 7.0, torch.nan  # samples without weight are not looked at
    found = loss(x, y, **options)
    found.sum().backward()
    assert passes
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=0)
    # A share near its sample's mean has a slope near 0, a difference of two numbers.
    torch.testing.assert_close(x.grad, slope, rtol=1e-9, atol=1e-17)
    assert not x.grad[0, 3:7].any() and not x.grad[1:4:2].any()


def test_a_class_left_out_that_no_float32_holds(passes):
    x, y = masks((2, 300), torch.float32, torch.int64)
    y[0, :100] = 2**24 + 1
    part = dice(x[:1, 100:], y[:1, 100:])
    found = dice(x, y, ignore_index=2**24 + 1, reduction="none")
    assert passes and torch.equal(found[:1], part[None])


def test_each_digit_of_an_almost_perfect_mask():
    x = torch.tensor([[18.0, 21.5, -19.0, -40.0, 30.0]], requires_grad=True)
    y = torch.tensor([[1, 1, 0, 0, 1]])
    found = dice(x, y, smooth=0.0)
    found.backward()
    with mpmath.workdps(50):
        p = [1 / (1 + mpmath.exp(-z)) for z in x[0].tolist()]
        both = sum(a * b for a, b in zip(p, y[0].tolist(), strict=True))
        size = sum(p) + 3
        exact = 1 - 2 * both / size
        slopes = [
            a * (1 - a) * (2 * both / size**2 - 2 * b / size)
            for a, b in zip(p, y[0].tolist(), strict=True)
        ]
    assert abs(found.item() / exact - 1) < 2e-7
    for slope, right in zip(x.grad[0].tolist(), slopes, strict=True):
        assert abs(slope / right - 1) < 1e-6


@EACH
def test_no_other_operation_is_as_long_as_the_logits(loss):
    loss, options = LOSSES[loss]
    x, y = masks((2, 70_001), torch.float32, torch.float32)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.numel() >= x.numel():
                seen.append(function.overloadpacket.__name__)
            return made

    with Watch():
        loss(x, y, **options).backward()
    assert set(seen) <= {"detach", "view", "alias", "empty", "set_", "empty_like"}


def test_the_same_on_any_number_of_threads():
    x, y = masks((3, 300_000), torch.float32, torch.bool)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        x.grad = None
        value = dice(x, y)
        value.backward()
        found.append((value.detach(), x.grad))
    torch.set_num_threads(before)
    for value, slope in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(slope, found[0][1])


def test_memory_in_another_order_and_with_gaps(passes):
    x, y = masks((4, 30, 40), torch.float64, torch.float64)
    x = x.detach()
    for one in (
        x.transpose(1, 2).contiguous().transpose(1, 2),
        x[:, ::2],
        x[:, :1].expand(x.shape),
    ):
        z, same = one.detach().requires_grad_(), one.clone().contiguous().requires_grad_()
        mask = y[:, : z.shape[1]]
        for input in (z, same):
            dice(input, mask).backward()
        assert torch.equal(z.grad, same.grad)
    assert len(passes) == 18


def test_second_derivatives_and_many_gradients_at_once():
    x, y = masks((2, 1, 4), torch.float64, torch.bool)
    call = lambda z: tversky(z, y, alpha=0.3, beta=0.7, gamma=1.5, reduction="none")  # noqa: E731
    assert torch.autograd.gradcheck(call, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, x, check_batched_grad=True)
