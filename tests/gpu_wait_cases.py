"""What the host waits for when losses over rows run on a GPU; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import sys

import pytest
import torch
from gpu_row_support import NAN, classes_of, numbers, take_for_a_gpu
from gpu_support import DEVICE, reads
from torch.utils._python_dispatch import TorchDispatchMode

from ravine.engine import capture
from ravine.errors import ArgumentError
from ravine.losses import (
    binary_cross_entropy,
    categorical_focal,
    contrastive,
    cross_entropy,
    hinge,
    linear_cross_entropy,
    mse,
    multi_margin,
    poly,
)
from ravine.losses.class_arguments import class_numbers

assert reads
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
CLASSES = 4


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    take_for_a_gpu(monkeypatch)


def of_head(x, target, **options):
    """Return the loss of a linear head, like that of scores."""
    return linear_cross_entropy(x, numbers(CLASSES, CLASSES, seed=9), target, **options)


LOSSES = {
    "cross_entropy": (cross_entropy, "class_weight"),
    "categorical_focal": (categorical_focal, "alpha"),
    "poly": (poly, "class_weight"),
    "multi_margin": (multi_margin, "class_weight"),
    "linear_cross_entropy": (of_head, "class_weight"),
}
EACH = pytest.mark.parametrize(("loss", "option"), LOSSES.values(), ids=LOSSES)


@pytest.fixture
def waits(reads):
    """Return what counts the waits of a loss and its way back."""
    reads.operations += "|lift_fresh"  # the host's own number, copied to the device
    x, target = numbers(3, CLASSES), classes_of(3, CLASSES)

    def count(loss, **options):
        leaf = x.clone().requires_grad_()
        before = reads.count
        loss(leaf, target, **options).backward()
        return reads.count - before

    return count


@EACH
def test_numbers_of_the_classes_are_looked_at_once(loss, option, waits):
    given = numbers(CLASSES, seed=3).abs()
    for check in ("off", "on"):
        usual = waits(loss, check=check)
        assert usual == 0 or check == "on" or loss is of_head
        assert waits(loss, check=check, **{option: given}) == usual + (check == "on")
        assert waits(loss, check=check, **{option: given}) == usual
    assert waits(loss, **{option: given.double()}) == usual + 1  # another tensor
    given[1] *= 2  # the same, changed
    assert waits(loss, **{option: given}) == usual + 1
    given.detach()[2] = NAN
    for _ in range(2):  # what is wrong is never taken for seen
        with pytest.raises(ArgumentError, match=r"finite and >= 0\n  where:    class 2"):
            waits(loss, **{option: given})
    assert waits(loss, check="off", **{option: given}) <= usual


@EACH
def test_a_list_is_looked_at_before_it_goes_to_the_device(loss, option, waits, monkeypatch):
    """By the host, whose own it is: also unchecked."""
    monkeypatch.setattr("ravine.losses.class_arguments.is_at_hand", lambda tensor: tensor.is_cpu)
    of_class = [1.0, 0.5, 2.0, 0.0]
    x, target = numbers(3, CLASSES), classes_of(3, CLASSES)
    given = torch.tensor(of_class, device=DEVICE)
    assert torch.equal(loss(x, target, **{option: of_class}), loss(x, target, **{option: given}))
    with pytest.raises(ArgumentError, match="class 3"):
        loss(x, target, check="off", **{option: [1.0, 0.5, 2.0, -1.0]})


@EACH
def test_a_normalizer_on_the_device_stays_there(loss, option, waits):
    x, target = numbers(3, CLASSES), classes_of(3, CLASSES)
    for shape in ((), (1, 1)):
        given = torch.full(shape, 7.0, device=DEVICE, dtype=torch.float16)
        assert waits(loss, check="off", normalizer=given) == waits(loss, check="off")
        assert waits(loss, normalizer=given) == waits(loss) + 1  # it is looked at
        leaves = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = loss(leaves[0], target, normalizer=given, check="off")
        want = loss(leaves[1], target, normalizer=7)
        found.backward(), want.backward()
        assert torch.equal(found, want) and torch.equal(leaves[0].grad, leaves[1].grad)
    for wrong in (0.0, -1.0, NAN):
        with pytest.raises(ArgumentError, match="normalizer must be finite and > 0"):
            waits(loss, normalizer=torch.tensor(wrong, device=DEVICE))
    nothing = torch.zeros((), device=DEVICE)  # unchecked it is divided by all the same
    assert loss(x, target, normalizer=nothing, check="off").isinf()


def test_a_normalizer_on_the_device_of_losses_of_samples(reads):
    x, y, given = numbers(3, 5), numbers(3, 5, seed=4), torch.full((), 8.0, device=DEVICE)
    target = torch.ones(3, device=DEVICE)
    reads.count = 0
    found = contrastive(x, y, target, normalizer=given, check="off")
    assert reads.count == 0
    assert torch.equal(found, contrastive(x, y, target, reduction="sum") / 8)


# --- CUDA graphs ---------------------------------------------------------------------------------


class _Nothing(TorchDispatchMode):
    """Lets no operation run."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} ran")


@pytest.fixture
def capturing(monkeypatch):
    """Take the tensors for those of a GPU on whose stream a graph is being captured."""
    monkeypatch.setattr(capture, "is_capturing", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))


@pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES.values()], ids=LOSSES)
def test_while_a_graph_is_captured_checks_say_that_they_have_to_wait(loss, capturing):
    name = "linear_cross_entropy" if loss is of_head else loss.__name__
    x, target = numbers(3, CLASSES), classes_of(3, CLASSES)
    head = numbers(CLASSES, CLASSES)
    with _Nothing(), pytest.raises(ArgumentError) as caught:
        linear_cross_entropy(x, head, target) if loss is of_head else loss(x, target)
    assert str(caught.value) == (
        f"{name}: what it checks cannot be captured by a CUDA graph\n"
        "  got:      check='on', for which the host reads values\n"
        "  expected: check='off'\n"
        "  do:       call it once outside of the graph, with its checks; give check='off' inside"
    )


def test_elementwise_losses_say_so_where_there_is_something_to_check(capturing):
    x, y = numbers(2, 5).abs().unbind()
    for loss, options in [
        (binary_cross_entropy, {}),
        (mse, {"weight": y}),
        (mse, {"normalizer": y[0]}),
    ]:
        with _Nothing(), pytest.raises(ArgumentError, match="what it checks cannot be captured"):
            loss(x, y, **options)
    mse(x, y)
    binary_cross_entropy(x, y / 9, weight=y, normalizer=y[0], check="off")


def test_numbers_of_the_classes_from_elsewhere_cannot_be_captured(monkeypatch):
    monkeypatch.setattr(capture, "is_capturing", lambda device: True)
    scores = torch.empty(3, CLASSES, device="meta")
    for given, got in [([1.0] * CLASSES, "a list"), (torch.ones(CLASSES), "a tensor on cpu")]:
        with pytest.raises(ArgumentError) as caught:
            class_numbers("this", "alpha", given, scores, checked=False)
        assert str(caught.value) == (
            "this: alpha from elsewhere cannot be captured by a CUDA graph\n"
            f"  got:      {got}\n"
            "  expected: a tensor on meta\n"
            "  do:       make it one before the capture"
        )


@pytest.mark.parametrize(
    "loss", [cross_entropy, categorical_focal, poly, hinge, multi_margin, of_head]
)
@pytest.mark.parametrize("way", ["kernel", "plain"])
def test_unchecked_a_graph_may_hold_them(loss, way, reads, monkeypatch):
    """The host reads nothing, and sends nothing from memory of its own."""
    module = sys.modules[linear_cross_entropy.__module__]
    monkeypatch.setattr(module, "is_capturing", lambda device: True)
    reads.operations += "|lift_fresh"
    x, target = numbers(5, CLASSES), classes_of(5, CLASSES)
    weight = numbers(5, seed=3).abs().requires_grad_(way == "plain")
    targets = [target]
    if loss is cross_entropy or loss is of_head:
        targets.append(numbers(5, CLASSES, seed=4).softmax(1))
    for given in targets:
        named = {"sample_weight" if loss is of_head else "weight": weight}
        for options in ({}, named, {"normalizer": torch.full((), 7.0, device=DEVICE)}):
            for reduction in ("mean", "sum", "none"):
                if reduction != "mean" and "normalizer" in options:
                    continue
                leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
                reads.count = 0
                found = loss(leaf, given, reduction=reduction, check="off", **options)
                found.sum().backward()
                assert reads.count == 0
                loss(other, given, reduction=reduction, **options).sum().backward()
                torch.testing.assert_close(leaf.grad, other.grad)
