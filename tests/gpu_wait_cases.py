"""What the host waits for when losses over rows run on a GPU; run by test_gpu.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from gpu_row_support import NAN, classes_of, numbers, take_for_a_gpu
from gpu_support import DEVICE, reads

from ravine.errors import ArgumentError
from ravine.losses import (
    categorical_focal,
    contrastive,
    cross_entropy,
    linear_cross_entropy,
    multi_margin,
    poly,
)

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
