"""Cross-entropy as a function: ignored rows, class weights, soft targets, layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ravine.losses import cross_entropy

WIDE = torch.float64
PATHS = pytest.mark.parametrize("plain", [False, True], ids=["kernel", "plain"])


def both(call, x, plain):
    """Return loss and gradient from the kernel or from plain operations."""
    if plain:
        gradient, found = torch.func.grad_and_value(call)(x)
        return found, gradient
    x = x.clone().requires_grad_()
    found = call(x)
    found.backward()
    return found.detach(), x.grad


@PATHS
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=str)
def test_all_ignored(plain, options):  # numerics 1
    x = torch.tensor([[torch.nan, torch.inf], [1.0, 2.0]])
    y = torch.tensor([-100, -100])
    for more in ({}, {"class_weight": torch.ones(2)}, {"weight": torch.ones(2)}):
        loss, gradient = both(lambda z, m=more: cross_entropy(z, y, **options, **m), x, plain)
        assert loss.item() == 0
        assert (gradient == 0).all()


@PATHS
@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_equal_left_out_rows(plain, ignored, smoothing, weighted):  # 4, 11, 12
    x = torch.randn(12, 5, dtype=WIDE)
    y = torch.randint(5, (12,))
    y[y == 2] = 3
    kept = torch.ones(12, dtype=torch.bool)
    kept[[0, 5, 11]] = False
    y[~kept] = ignored
    weight = torch.rand(5, dtype=WIDE) if weighted else None
    options = {"label_smoothing": smoothing, "class_weight": weight}
    loss, gradient = both(lambda z: cross_entropy(z, y[kept], **options), x[kept], plain)
    x[0] = torch.nan
    x[5, 1] = torch.inf
    options["ignore_index"] = ignored
    found, slopes = both(lambda z: cross_entropy(z, y, **options), x, plain)
    torch.testing.assert_close(found, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes[kept], gradient, rtol=1e-12, atol=1e-15)
    assert (slopes[~kept] == 0).all()
    theirs = F.cross_entropy(
        x[kept], y[kept], weight=weight, label_smoothing=smoothing, reduction="mean"
    )
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=0)


@PATHS
def test_soft_targets_equal_the_integers_they_stand_for(plain):
    x, y = torch.randn(9, 5, dtype=WIDE), torch.randint(5, (9,))
    hot = F.one_hot(y, 5).double()
    for options in ({}, {"label_smoothing": 0.2}):
        loss, gradient = both(lambda z, o=options: cross_entropy(z, y, **o), x, plain)
        found, slopes = both(lambda z, o=options: cross_entropy(z, hot, **o), x, plain)
        torch.testing.assert_close(found, loss, rtol=1e-14, atol=0)
        torch.testing.assert_close(slopes, gradient, rtol=1e-14, atol=1e-16)


@PATHS
def test_classes_in_dimension_1_as_torch_has_them(plain):
    x, y = torch.randn(3, 5, 4, 2, dtype=WIDE), torch.randint(5, (3, 4, 2))
    soft = torch.softmax(torch.randn_like(x), 1)
    for target in (y, soft):
        for reduction in ("mean", "sum"):
            exact = x.clone().requires_grad_()
            theirs = F.cross_entropy(exact, target, reduction=reduction)
            theirs.backward()
            loss, gradient = both(
                lambda z, t=target, r=reduction: cross_entropy(z, t, dim=1, reduction=r), x, plain
            )
            torch.testing.assert_close(loss, theirs.detach(), rtol=1e-12, atol=0)
            torch.testing.assert_close(gradient, exact.grad, rtol=1e-12, atol=1e-15)
    assert cross_entropy(x, y, dim=1, reduction="none").shape == (3, 4, 2)


def test_one_sample_without_a_batch():
    x, y = torch.randn(5, dtype=WIDE), torch.tensor(3)
    torch.testing.assert_close(cross_entropy(x, y), F.cross_entropy(x, y), rtol=1e-14, atol=0)
    assert cross_entropy(x, y, reduction="none").shape == ()


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64], ids=str)
def test_integer_types(kind):
    x, y = torch.randn(6, 5), torch.randint(5, (6,))
    assert torch.equal(cross_entropy(x, y.to(kind)), cross_entropy(x, y))


def test_gradient_by_class_weights():
    x, y = torch.randn(6, 3, dtype=WIDE), torch.tensor([0, 1, 2, 2, -100, 1])
    weight = torch.rand(3, dtype=WIDE, requires_grad=True)
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "sum"}):
        assert torch.autograd.gradcheck(
            lambda w, o=options: cross_entropy(x, y, class_weight=w, **o), weight
        )


def test_normalizer_that_is_trained_has_a_gradient():
    x, y = torch.randn(6, 3, dtype=WIDE), torch.randint(3, (6,))
    amount = torch.tensor(4.0, dtype=WIDE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n: cross_entropy(x, y, normalizer=n), amount)


@pytest.mark.parametrize("classes", [10, 100])
def test_probability_near_1_in_bfloat16(classes):  # numerics 15
    x = torch.zeros(4, classes, dtype=torch.bfloat16)
    x[:, 0] = torch.tensor([4.0, 8.0, 12.0, 16.0])
    exact = x.double().requires_grad_()
    x.requires_grad_()
    y = torch.zeros(4, dtype=torch.int64)
    cross_entropy(x, y, reduction="sum").backward()
    F.cross_entropy(exact, y, reduction="sum").backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2.0**-8, atol=0)
    x.grad = None
    (cross_entropy(x, y, reduction="sum") * 3).backward()  # rounded once, not twice
    torch.testing.assert_close(x.grad.double(), 3 * exact.grad, rtol=2.0**-8, atol=0)


def test_compiled_with_ignored_rows():  # numerics 17
    x, y = torch.randn(8, 5, dtype=WIDE), torch.randint(5, (8,))
    y[::3] = -100
    for fullgraph in (True, False):
        torch._dynamo.reset()
        compiled = torch.compile(cross_entropy, backend="eager", fullgraph=fullgraph)
        ours = x.clone().requires_grad_()
        compiled(ours, y, label_smoothing=0.1).backward()
        theirs = x.clone().requires_grad_()
        F.cross_entropy(theirs, y, label_smoothing=0.1).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)
