"""Triplet and contrastive losses in two passes: against plain PyTorch in float64."""

from __future__ import annotations

import itertools

import pytest
import torch

from ravine.losses import contrastive, distances, triplet
from ravine.losses.kernels import distances_cpu

KINDS = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8 + 1e-6, torch.float16: 2.0**-11 + 1e-6}
SHAPES = [
    (7, 3),
    (1, 1),
    (2, 3, 65),
    (300, 700),
]  # the last one in several blocks, on several threads
KIND = pytest.mark.parametrize("kind", KINDS, ids=str)


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    """Return the kernels' runs."""
    found = []
    run = distances_cpu._run

    def noted(call, *rest):
        found.append(call)
        run(call, *rest)

    monkeypatch.setattr(distances_cpu, "_run", noted)
    return found


def vectors(shape, kind, count=3, seed=0):
    generator = torch.Generator().manual_seed(shape[-1] + seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [one.to(kind).requires_grad_() for one in made]


def checked(call, given, kind, factor=1.0, **close):
    """Compare value and gradients with those in float64, which no kernel serves."""
    found = call(*given)
    gradients = torch.autograd.grad((found * factor).sum(), given)
    wide = [one.detach().double().requires_grad_() for one in given]
    exact = call(*wide)
    slopes = torch.autograd.grad((exact * factor).sum(), wide)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, exact.float(), rtol=1e-6, atol=1e-6)
    tiny = 2.0**-25 if kind is torch.float16 else 1e-7
    for one, exact in zip(gradients, slopes, strict=True):
        assert one.dtype is kind
        torch.testing.assert_close(one.double(), exact, rtol=KINDS[kind], atol=tiny)


@KIND
@pytest.mark.parametrize("swap", [False, True])
def test_triplet(kind, swap, runs):
    for shape in SHAPES:
        given = vectors(shape, kind)
        checked(lambda *v: triplet(*v, swap=swap, eps=0.01), given, kind)
        assert runs == ["distances", "slopes"]
        runs.clear()


@KIND
def test_contrastive(kind, runs):
    for shape in SHAPES:
        given = vectors(shape, kind, 2)
        target = torch.arange(given[0].shape[:-1].numel()).reshape(shape[:-1]) % 2
        margin = 1.5 * shape[-1] ** 0.5
        checked(lambda *v, t=target, m=margin: contrastive(*v, t, margin=m), given, kind, 5.0)
        assert runs == ["distances", "slopes"]
        runs.clear()


@KIND
def test_left_out_vectors_may_hold_anything(kind, runs):
    given = vectors((6, 5), kind)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.5, 0.0])
    right = triplet(*given, weight=weight, swap=True)
    slopes = torch.autograd.grad(right, given)
    with torch.no_grad():
        for one, bad in zip(given, (torch.nan, torch.inf, -torch.inf), strict=True):
            one[weight == 0] = bad
    found = triplet(*given, weight=weight, swap=True)
    assert torch.equal(found, right)
    for one, slope in zip(torch.autograd.grad(found, given), slopes, strict=True):
        assert torch.equal(one, slope)
        assert not one[weight == 0].any()
    assert len(runs) == 4


def test_every_subset_of_gradients():
    given = vectors((4, 6), torch.float32)
    slopes = torch.autograd.grad(triplet(*given, swap=True), given)
    for wanted in itertools.product([False, True], repeat=3):
        some = [one.detach().requires_grad_(want) for one, want in zip(given, wanted, strict=True)]
        found = triplet(*some, swap=True)
        assert found.requires_grad == any(wanted)
        if found.requires_grad:
            found.backward()
        for one, slope, want in zip(some, slopes, wanted, strict=True):
            assert torch.equal(one.grad, slope) if want else one.grad is None


def test_squares_that_no_float32_holds():
    x = torch.tensor([[3e30, -1e38], [1e-30, 2e-30]], requires_grad=True)
    y = torch.zeros(2, 2)
    found = contrastive(x, y, torch.ones(2), margin=2e38, reduction="none")
    assert found[0] == torch.inf  # (1e38)^2 / 2
    far = triplet(x, y, torch.full((2, 2), 3e38), reduction="none")
    assert torch.equal(far, torch.zeros(2))
    near = triplet(x, y, y, eps=0.0, reduction="none")
    assert torch.equal(near, torch.ones(2))
    (slope,) = torch.autograd.grad(triplet(x, y, y + 1e-31, eps=0.0, margin=1e-9), x)
    assert slope.isfinite().all() and slope[1].any()


def test_not_numbers_and_infinite_ones():
    x = torch.tensor([[torch.nan, 1.0], [torch.inf, 1.0], [0.0, 0.0]], requires_grad=True)
    y = torch.zeros(3, 2)
    found = contrastive(x, y, torch.tensor([1, 1, 1]), margin=3.0, reduction="none")
    assert found[0].isnan() and found[1:].tolist() == [0.0, 4.5]
    (slope,) = torch.autograd.grad(found[1:].sum(), x)
    assert not slope.any()


def test_memory_in_another_order():
    given = vectors((8, 5), torch.float32)
    turned = [one.detach().t().contiguous().t().requires_grad_() for one in given]
    wide = [one.detach().repeat(1, 2)[:, :5].requires_grad_() for one in given]
    slopes = torch.autograd.grad(triplet(*given), given)
    for other in (turned, wide):
        for one, slope in zip(torch.autograd.grad(triplet(*other), other), slopes, strict=True):
            assert torch.equal(one, slope)


def test_second_derivatives_and_many_gradients_at_once():
    given = vectors((3, 4), torch.float32)
    wide = [one.detach().double().requires_grad_() for one in given]

    def second(values):
        found = triplet(*values, weight=weight.to(values[0]), swap=True, margin=3.0, eps=0.5)
        first = torch.autograd.grad(found, values, create_graph=True)
        return torch.autograd.grad(sum((one**2).sum() for one in first), values)

    weight = torch.tensor([1.0, 0.0, 2.0])
    with torch.no_grad():
        for one in (*given, *wide):
            one[1] = torch.nan
    for one, exact in zip(second(given), second(wide), strict=True):
        torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-6)
        assert not one[1].any()
    with torch.no_grad():
        for one in (*given, *wide):
            one[1] = one[0] / 2
    losses = triplet(*given, reduction="none", margin=3.0)
    each = torch.autograd.grad(losses, given, torch.eye(3), is_grads_batched=True)
    exact = torch.autograd.grad(
        triplet(*wide, reduction="none", margin=3.0),
        wide,
        torch.eye(3).double(),
        is_grads_batched=True,
    )
    for one, right in zip(each, exact, strict=True):
        torch.testing.assert_close(one.double(), right, rtol=1e-5, atol=1e-6)


def test_the_same_on_any_number_of_threads(runs):
    given = vectors((300, 700), torch.float32)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        value = triplet(*given)
        found.append([value, *torch.autograd.grad(value, given)])
    torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


def test_vectors_of_several_types_are_served_too(runs):
    x, y, z = vectors((4, 6), torch.float32)
    exact = triplet(x, y, z.detach().bfloat16().float())
    found = triplet(x, y, z.detach().bfloat16())
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)
    assert runs == ["distances"]
    assert distances.PAIRS[:2] == ((0, 1), (0, 2))
