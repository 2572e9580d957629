"""Hinge: the choice between two classes and many, kinks, ties, and where other libraries differ."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ravine.losses import hinge

PATHS = pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])


def slope(x, y, plain, **options):
    if plain:
        return torch.func.grad(lambda z: hinge(z, y, **options))(x)
    x = x.clone().requires_grad_()
    hinge(x, y, **options).backward()
    return x.grad


@PATHS
def test_the_kink_has_slope_0(plain):
    x = torch.tensor([1.0, -1.0, 0.5, 2.0])
    y = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert slope(x, y, plain, reduction="sum").tolist() == [0, 0, -1, 0]
    rows = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.0, 0.0]])
    found = slope(rows, torch.tensor([0, 0]), plain, reduction="sum")
    assert found.tolist() == [[0, 0, 0], [-1, 1, 0]]  # of equal rivals the first one


@PATHS
def test_scores_so_large_that_the_margin_of_1_is_lost_in_a_sum(plain):
    x = torch.tensor([[1e9, 1e9, 0.0], [3e7, 3e7 + 2, 0.0]])
    y = torch.tensor([0, 0])
    assert hinge(x, y, reduction="none").tolist() == [1, 3]
    assert slope(x, y, plain, reduction="sum").tolist() == [[-1, 1, 0], [-1, 1, 0]]


def test_target_type_chooses_never_its_values():
    x = torch.tensor([0.5, -2.0])
    assert hinge(x, torch.tensor([1, -1])).item() == 0.25  # integers of the same shape
    assert hinge(x, torch.tensor([1.0, -1.0])).item() == 0.25
    assert hinge(torch.tensor([[-1.0, -2.0]]), torch.tensor([0])).item() == 0  # Keras: 2
    assert hinge(torch.tensor([[0.0, 3.0]]), torch.tensor([0])).item() == 4


def test_for_two_rows_it_is_torchs_multi_margin_loss():
    # With two classes Weston-Watkins, divided by the classes, is half of Crammer-Singer.
    x, y = torch.randn(50, 2, dtype=torch.float64), torch.randint(2, (50,))
    torch.testing.assert_close(hinge(x, y), 2 * F.multi_margin_loss(x, y), rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 2), (3, 300), (9000, 10)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_many_shapes(shape, kind):
    x, y = torch.randn(shape).to(kind), torch.randint(shape[1], shape[:1])
    theirs = x.double().requires_grad_()
    own = theirs.gather(1, y[:, None])[:, 0]
    others = theirs.masked_fill(F.one_hot(y, shape[1]).bool(), -torch.inf)
    exact = F.relu(1 + others.max(1).values - own)
    exact.mean().backward()
    ours = x.clone().requires_grad_()
    found = hinge(ours, y)
    found.backward()
    assert found.item() == pytest.approx(exact.mean().item(), rel=1e-6)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=2.0**-8, atol=0)
