"""What the losses refuse, and the words they do it with."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from loss_table import ROWS
from test_losses_numbers import EACH, loss_of

from ravine import losses
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
    TargetError,
    UnknownOptionError,
)


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_a_column_against_a_vector():  # numerics 9
    assert message(ShapeError, losses.mse, torch.zeros(4, 1), torch.zeros(4)) == (
        "mse: input and target differ in shape\n"
        "  got:      input (4, 1), target (4,)\n"
        "  expected: the same shape; nothing is broadcast\n"
        "  do:       call input.squeeze(-1) or target.unsqueeze(-1) on the one that needs it"
    )
    for name in ("huber", "binary_cross_entropy", "hinge"):
        text = message(ShapeError, losses.FUNCTIONS[name], torch.zeros(4, 1), torch.ones(4))
        assert text.startswith(f"{name}: input and target differ in shape")
    text = message(ShapeError, losses.mse, torch.zeros(4, 3), torch.zeros(3))
    assert text.endswith("do:       make the shapes equal")


def test_class_layouts():
    x = torch.zeros(2, 5, 7)
    assert message(ShapeError, losses.cross_entropy, x, torch.zeros(2, 7).long()) == (
        "cross_entropy: input and target do not fit each other\n"
        "  got:      input (2, 5, 7), target (2, 7) torch.int64\n"
        "  expected: integer targets (2, 5)\n"
        "  do:       torch has the classes in dimension 1; for that layout give dim=1"
    )
    text = message(ShapeError, losses.cross_entropy, torch.zeros(4, 3), torch.zeros(4))
    assert "probabilities (4, 3), or integer classes; there are 3 classes" in text
    text = message(ShapeError, losses.hinge, torch.zeros(4, 3), torch.zeros(5).long())
    assert "differ in shape" in text or "do not fit" in text
    text = message(ShapeError, losses.cross_entropy, x, torch.zeros(2, 5).long(), dim=3)
    assert text.startswith("cross_entropy: there is no dimension 3 for the classes")
    text = message(ShapeError, losses.cross_entropy, torch.zeros(2, 0), torch.zeros(2).long())
    assert text.startswith("cross_entropy: there are no classes")


def test_a_class_out_of_range():  # numerics 10
    y = torch.tensor([0, 3, 2, -1])
    assert message(TargetError, losses.cross_entropy, torch.zeros(4, 3), y) == (
        "cross_entropy: a target is not one of the classes\n"
        "  where:    row 1 of 4 (2 such rows)\n"
        "  got:      class 3\n"
        "  expected: 0 .. 2, or ignore_index=-100\n"
        "  do:       count classes from 0, or give the logits one column per class"
    )
    for reduction in ("none", "sum", "mean"):
        message(TargetError, losses.cross_entropy, torch.zeros(4, 3), y, reduction=reduction)
    message(TargetError, losses.cross_entropy, torch.zeros(4, 3), y, normalizer=2)
    message(TargetError, losses.cross_entropy, torch.zeros(4, 3), torch.tensor([0, 1, 2, -100]) + 3)
    assert message(TargetError, losses.hinge, torch.zeros(4, 3), y) == (
        "hinge: a target is not one of the classes\n"
        "  where:    row 1 of 4\n"
        "  got:      class 3\n"
        "  expected: 0 .. 2\n"
        "  do:       count classes from 0; for labels -1 and +1 give a float target"
    )
    text = message(TargetError, losses.hinge, torch.zeros(2, 1), torch.tensor([1, -1]))
    assert "for labels -1 and +1 give a float target" in text


@EACH
def test_an_empty_batch(row):  # numerics 2
    x, y = row.samples((0,), torch.float32)
    assert message(ShapeError, loss_of, row, x, y) == (
        f"{row.loss}: the batch is empty, so its mean is not defined\n"
        "  do:       skip the batch, or use reduction='sum' or normalizer="
    )


@pytest.mark.parametrize("row", [r for r in ROWS if r.unusable], ids=str)
def test_a_target_outside_of_the_domain(row):
    bad, words = row.unusable
    x, y = row.samples((2, 3), torch.float32)
    y[1, 2] = bad
    for reduction in ("mean", "none"):
        assert message(TargetError, loss_of, row, x, y, reduction=reduction) == (
            f"{row.loss}: a target is outside of what the loss is defined for\n"
            f"  where:    target[1, 2]\n  got:      {bad}\n  expected: {words}"
        )
    y[1, 2] = torch.nan
    assert "got:      nan" in message(TargetError, loss_of, row, x, y)
    call = torch.func.grad(lambda z: loss_of(row, z, y))
    assert "target[1, 2]" in message(TargetError, call, x)
    message(TargetError, loss_of, row, x.double(), y.double())


def test_negative_probabilities():
    y = torch.tensor([[0.5, 0.5], [1.5, -0.5]])
    assert message(TargetError, losses.cross_entropy, torch.zeros(2, 2), y) == (
        "cross_entropy: a target probability is outside of what the loss is defined for\n"
        "  where:    sample 1, class 1\n"
        "  got:      -0.5\n"
        "  expected: a number >= 0; the probabilities of a sample add up to 1"
    )


@EACH
def test_types_of_input_and_target(row):
    x, y = row.samples((3,), torch.float32)
    assert message(ArgumentTypeError, loss_of, row, x.long(), y) == (
        f"{row.loss}: the input is not of a float type that losses are computed of\n"
        "  got:      torch.int64\n"
        "  expected: float32, float64, bfloat16 or float16\n"
        "  do:       call input.float()"
    )
    text = message(ArgumentTypeError, loss_of, row, x.tolist(), y)
    assert text.startswith(f"{row.loss}: the input is no tensor\n  got:      list")
    text = message(ArgumentTypeError, loss_of, row, x, y.tolist())
    assert text.startswith(f"{row.loss}: the target is no tensor\n  got:      list")
    message(ArgumentTypeError, loss_of, row, x, y.to(torch.complex64))


@EACH
def test_weights(row):
    x, y = row.samples((2, 3), torch.float32)
    weight = torch.ones(2, 3)
    for bad in (-1.0, torch.nan, torch.inf):
        weight[1, 2] = bad
        for extra in ({}, {"reduction": "none"}):
            assert message(ArgumentError, loss_of, row, x, y, weight=weight, **extra) == (
                f"{row.loss}: sample weights must be finite and >= 0\n"
                f"  where:    weight at (1, 2)\n  got:      {bad}"
            )
    assert message(ShapeError, loss_of, row, x, y, weight=torch.ones(3)) == (
        f"{row.loss}: the sample weights do not fit\n"
        "  got:      weight (3,)\n"
        "  expected: (2, 3), or its first dimensions (one weight a row)"
    )
    for bad in (torch.ones(2, 3).long(), [1.0, 2.0]):
        text = message(ArgumentTypeError, loss_of, row, x, y, weight=bad)
        assert text.startswith(f"{row.loss}: weight must be a float tensor")
    # Halves whose sum is beyond float16 are fine.
    x, y = row.samples((70_000,), torch.float32)
    assert loss_of(row, x, y, weight=torch.ones(70_000, dtype=torch.float16)).isfinite()


@EACH
def test_reductions_and_normalizers(row):
    x, y = row.samples((3,), torch.float32)
    assert message(ArgumentError, loss_of, row, x, y, reduction="avg").startswith(
        f"{row.loss}: unknown reduction 'avg'\n  expected: one of mean, sum, none"
    )
    assert "did you mean 'mean'?" in message(ArgumentError, loss_of, row, x, y, reduction="meam")
    assert message(ArgumentError, loss_of, row, x, y, reduction="sum", normalizer=3) == (
        f"{row.loss}: normalizer goes with reduction='mean' only\n  got:      reduction='sum'"
    )
    for bad in (0, -1.0, torch.nan, torch.inf, torch.tensor(0.0)):
        text = message(ArgumentError, loss_of, row, x, y, normalizer=bad)
        assert text.startswith(f"{row.loss}: normalizer must be finite and > 0")
    message(ShapeError, loss_of, row, x, y, normalizer=torch.ones(2))
    message(ArgumentTypeError, loss_of, row, x, y, normalizer="3")


@EACH
def test_other_devices(row):
    x, y = row.samples((3,), torch.float32)
    assert message(ArgumentError, loss_of, row, x, y.to("meta")) == (
        f"{row.loss}: input and target are on different devices\n"
        "  got:      input on cpu, target on meta\n"
        "  do:       move the target with .to(input.device)"
    )
    text = message(ArgumentError, loss_of, row, x, y, weight=torch.ones(3, device="meta"))
    assert "input on cpu, weight on meta" in text
    if "class_weight" not in row.options:
        shape = loss_of(row, x.to("meta"), y.to("meta"), reduction="none").shape
        assert shape == loss_of(row, x, y, reduction="none").shape


@pytest.mark.parametrize("name", losses.FUNCTIONS)
def test_a_misspelt_option(name):
    function = losses.FUNCTIONS[name]
    for call in (
        lambda: function(torch.zeros(2), torch.ones(2), wieght=torch.ones(2)),
        lambda: losses.LOSSES[name](reductoin="sum"),
    ):
        text = message(UnknownOptionError, call)
        assert f"{name} has no option" in text
        assert "did you mean" in text


def test_options_out_of_bounds():
    x, y = torch.zeros(2, 3), torch.tensor([0, 1])
    for bad in (0, -1.0, torch.inf, torch.nan, "1"):
        for call in (lambda: losses.huber(x, x, delta=bad), lambda: losses.Huber(bad)):  # noqa: B023
            assert message(ArgumentError, call) == (
                "huber: delta has a value that cannot be used\n"
                f"  got:      {bad!r}\n  expected: a finite number > 0"
            )
    for bad in (-0.1, 1.1, torch.nan, "0.1"):
        for call in (
            lambda: losses.cross_entropy(x, y, label_smoothing=bad),  # noqa: B023
            lambda: losses.CrossEntropy(label_smoothing=bad),  # noqa: B023
        ):
            assert "label_smoothing has a value that cannot be used" in message(ArgumentError, call)
    for option in ("ignore_index", "dim"):
        for bad in (1.5, 2**63, -(2**63) - 1):
            text = message(ArgumentError, losses.cross_entropy, x, y, **{option: bad})
            assert text == f"cross_entropy: {option} has a value that cannot be used\n" + (
                f"  got:      {bad}\n  expected: an integer of 64 bits"
            )
    text = message(ShapeError, losses.cross_entropy, x, y, class_weight=torch.ones(2))
    assert text == (
        "cross_entropy: class_weight does not fit the classes\n"
        "  got:      (2,)\n  expected: (3,), one for each class"
    )
    bad = torch.tensor([1.0, -1.0, 1.0])
    text = message(ArgumentError, losses.cross_entropy, x, y, class_weight=bad)
    assert text == (
        "cross_entropy: class weights must be finite and >= 0\n"
        "  where:    class 1\n  got:      -1.0"
    )


@pytest.mark.parametrize("name", losses.FUNCTIONS)
def test_true_and_false_are_no_numbers(name):
    function = losses.FUNCTIONS[name]
    bounds = getattr(getattr(function, "rows", function), "bounds", {})  # hinge has none
    for option, (_, words) in bounds.items():
        for bad in (True, False):
            call = partial(losses.LOSSES[name], **{option: bad})
            if words == "True or False":
                call()
                continue
            assert message(ArgumentError, call) == (
                f"{name}: {option} has a value that cannot be used\n"
                f"  got:      {bad}\n  expected: {words}"
            )


def test_true_is_no_number_for_what_is_bounded_elsewhere():
    x, y = torch.zeros(2, 3), torch.tensor([0, 1])
    assert message(ArgumentTypeError, losses.mse, x, x, normalizer=True) == (
        "mse: normalizer is no number\n  got:      bool"
    )
    for option in ("z_loss", "soft_cap", "label_smoothing", "ignore_index"):
        call = partial(losses.linear_cross_entropy, x, torch.zeros(4, 3), y, **{option: True})
        text = message(ArgumentError, call)
        assert f"cross_entropy: {option} has a value that cannot be used\n" in text


def test_an_unknown_loss():
    with pytest.raises(AttributeError, match="has no loss 'hubber'"):
        losses.hubber


def test_a_call_like_one_before_is_looked_at_all_the_same():
    scores, target = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    call = losses.cross_entropy
    for _ in range(2):
        call(scores, target).backward()
    wrong = target.clone()
    wrong[4] = 3
    assert "where:    row 4 of 6" in message(TargetError, call, scores, wrong)
    assert call(scores, wrong, check="off").isnan()
    message(ShapeError, call, scores, target[:5])
    message(ShapeError, call, scores.t().contiguous(), target)
    message(ArgumentTypeError, call, scores, target.bool())
    message(ArgumentTypeError, call, scores.long(), target)
    message(ArgumentTypeError, call, scores.detach().numpy(), target)
    message(ArgumentError, call, scores, target, reduction="avg")
    message(ArgumentError, call, scores, target, check="no")
    message(ArgumentError, call, scores, target, weight=torch.full((6,), torch.nan))
    message(ArgumentError, call, scores, target, class_weight=[1.0, -1.0, 1.0])
    message(UnknownOptionError, call, scores, target, smoothing=0.1)
    empty = torch.empty(0, 3)
    assert call(empty, target[:0], reduction="sum") == 0
    message(ShapeError, call, empty, target[:0])
    # Whatever is at work is seen, and leaves nothing behind.
    rows = torch.vmap(lambda x, y: call(x[None], y[None]))(scores, target)
    assert torch.allclose(rows, call(scores, target, reduction="none"))
    strided = scores.detach().t().contiguous().t().requires_grad_()
    (one,) = torch.autograd.grad(call(strided, target), strided)
    assert torch.equal(one, torch.autograd.grad(call(scores, target), scores)[0])
