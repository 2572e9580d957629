"""Derivatives of linear_cross_entropy in every way that torch can ask for them."""

from __future__ import annotations

import pytest
import torch
from linear_cases import WIDE, oracle, small_chunks
from torch.autograd import gradcheck, gradgradcheck

from ravine.losses import linear_cross_entropy

OPTIONS = [
    {},
    {"reduction": "none"},
    {"reduction": "sum", "label_smoothing": 0.1, "class_weight": [0.5, 2.0, 1.0, 0.2, 1.0, 3.0]},
    {"z_loss": 0.1, "soft_cap": 2.0, "sample_weight": torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0])},
    {"return_lse": True, "z_loss": 0.1},
    {"return_lse": True, "reduction": "none", "soft_cap": 2.0},
]
EACH = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")


def inputs():
    made = torch.randn(5, 3), torch.randn(6, 3), torch.randn(6)
    return [t.to(WIDE).requires_grad_() for t in made]


TARGETS = [torch.tensor([0, 3, -100, 5, 1]), torch.softmax(torch.randn(5, 6, dtype=WIDE), 1)]


@EACH
@pytest.mark.parametrize("target", TARGETS, ids=("classes", "soft"))
def test_gradcheck_of_both_orders(options, target):
    call = lambda h, w, b: linear_cross_entropy(h, w, target, b, **options)  # noqa: E731
    with small_chunks():
        assert gradcheck(call, inputs())
        assert gradgradcheck(call, inputs())


@EACH
def test_forward_mode_and_batched_gradients(options):
    call = lambda h, w, b: linear_cross_entropy(h, w, TARGETS[0], b, **options)  # noqa: E731
    with small_chunks():
        assert gradcheck(call, inputs(), check_forward_ad=True, check_batched_grad=True)


def test_gradient_by_probabilities_sample_weights_and_normalizer():
    weight = torch.tensor([0.3, 1.0, 0.1, 0.7, 2.0], dtype=WIDE, requires_grad=True)
    normalizer = torch.tensor(3.0, dtype=WIDE, requires_grad=True)
    soft = TARGETS[1].clone().requires_grad_()

    def call(h, w, b, s, n, y):
        return linear_cross_entropy(h, w, y, b, sample_weight=s, normalizer=n, z_loss=0.1)

    assert gradcheck(call, (*inputs(), weight, normalizer, soft))


def test_logsumexp_and_loss_used_together():
    mine = inputs()
    other = [t.detach().clone().requires_grad_() for t in mine]
    loss, lse = linear_cross_entropy(mine[0], mine[1], TARGETS[0], mine[2], return_lse=True)
    exact, exact_lse = oracle(other[0], other[1], TARGETS[0], other[2])
    (3 * loss + (lse**2).sum()).backward()
    (3 * exact + (exact_lse**2).sum()).backward()
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_way_back_and_changed_inputs(reduction):
    h, w, b = inputs()
    loss = linear_cross_entropy(h, w, TARGETS[0], b, reduction=reduction).sum()
    first = torch.autograd.grad(loss * 2, (h, w, b), retain_graph=True)
    second = torch.autograd.grad(loss, (h, w, b), retain_graph=True)
    for x, y in zip(first, second, strict=True):
        torch.testing.assert_close(x, 2 * y, rtol=1e-13, atol=0)
    with torch.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, (h, w, b))


def test_torch_func_gives_the_same():
    h, w, _ = inputs()
    target = TARGETS[0]
    call = lambda h, w, t: linear_cross_entropy(h, w, t, z_loss=0.1)  # noqa: E731
    by_func = torch.func.grad(call, argnums=(0, 1))(h, w, target)
    exact = torch.autograd.grad(oracle(h, w, target, z_loss=0.1)[0], (h, w))
    for x, y in zip(by_func, exact, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)
    many = torch.stack([h, 2 * h]).detach()
    targets = torch.stack([target, target.flip(0)])
    mapped = torch.func.vmap(call, in_dims=(0, None, 0))(many, w, targets)
    alone = torch.stack([call(x, w, t) for x, t in zip(many, targets, strict=True)])
    torch.testing.assert_close(mapped, alone, rtol=1e-12, atol=0)
    hessian = torch.func.hessian(lambda v: call(v, w, target))(h)
    assert torch.allclose(hessian.reshape(15, 15), hessian.reshape(15, 15).T, atol=1e-13)


def test_compiled_graph_is_whole():
    h, w, b = inputs()
    call = torch.compile(
        lambda h, w, b: linear_cross_entropy(h, w, TARGETS[0], b, soft_cap=2.0),
        fullgraph=True,
        backend="aot_eager",
    )
    exact = oracle(h, w, TARGETS[0], b, soft_cap=2.0)[0]
    found = call(h, w, b)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=0)
    for x, y in zip(
        torch.autograd.grad(found, (h, w, b)), torch.autograd.grad(exact, (h, w, b)), strict=True
    ):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


def test_inference_and_no_grad_compute_no_gradient():
    h, w, b = inputs()
    with torch.no_grad():
        loss, lse = linear_cross_entropy(h, w, TARGETS[0], b, return_lse=True)
    assert not loss.requires_grad and not lse.requires_grad
    with torch.inference_mode():
        again = linear_cross_entropy(h, w, TARGETS[0], b)
    assert again == loss
