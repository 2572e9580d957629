"""linear_cross_entropy on inputs that break others: ignored rows, extremes, wrong input, memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from linear_cases import WIDE, oracle, small_chunks

from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
    TargetError,
    UnknownOptionError,
)
from ravine.losses import (
    LinearCrossEntropy,
    cross_entropy,
    linear_autograd,
    linear_chunks,
    linear_cross_entropy,
    linear_products,
)

H, W, T = torch.randn(6, 4), torch.randn(5, 4), torch.arange(6) % 5


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("options", [{}, {"z_loss": 0.1, "soft_cap": 3.0, "return_lse": True}])
def test_all_rows_ignored_give_0_and_gradients_of_0(options):
    hidden, weight, bias = leaves(H * torch.nan, W, W[:, 0])
    loss = linear_cross_entropy(hidden, weight, torch.full((6,), -100), bias, **options)
    loss = loss[0] if options else loss
    loss.backward()
    assert loss == 0
    for t in (hidden, weight, bias):
        assert torch.equal(t.grad, torch.zeros_like(t))


def test_empty_batch():
    none = torch.empty(0, 4), W, torch.empty(0, dtype=torch.int64)
    with pytest.raises(ShapeError, match="the batch is empty, so its mean is not defined"):
        linear_cross_entropy(*none)
    hidden, weight = leaves(none[0], W)
    linear_cross_entropy(hidden, weight, none[2], reduction="sum").backward()
    assert torch.equal(weight.grad, torch.zeros_like(W)) and hidden.grad.shape == (0, 4)
    assert linear_cross_entropy(*none, reduction="none").shape == (0,)


@pytest.mark.parametrize("how", ["ignored", "weight 0", "soft, weight 0"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_nan_in_a_row_that_does_not_count_stays_there(how, reduction):
    hidden, weight = leaves(H, W)
    target, factor = T.clone(), torch.ones(6)
    with torch.no_grad():
        hidden[2] = torch.nan
        hidden[4, 1] = torch.inf
    out = [2, 4]
    if how == "ignored":
        target[out] = -100
    else:
        factor[out] = 0.0
    if how.startswith("soft"):
        target = F.one_hot(target, 5).float()
    with small_chunks():
        loss = linear_cross_entropy(
            hidden, weight, target, sample_weight=factor, reduction=reduction, z_loss=0.1
        )
    loss.sum().backward()
    kept = [0, 1, 3, 5]
    h, w = leaves(H[kept], W)
    exact = linear_cross_entropy(h, w, target[kept], reduction=reduction, z_loss=0.1)
    exact.sum().backward()
    torch.testing.assert_close(loss[kept] if loss.ndim else loss, exact)
    torch.testing.assert_close(weight.grad, w.grad)
    assert torch.equal(hidden.grad[out], torch.zeros(2, 4))
    torch.testing.assert_close(hidden.grad[kept], h.grad)


def test_ignored_rows_are_not_computed(monkeypatch):
    seen = []
    multiply = linear_chunks._logits
    monkeypatch.setattr(
        linear_chunks, "_logits", lambda h, *rest: (seen.append(len(h)), multiply(h, *rest))
    )
    target = torch.where(torch.arange(1000) % 4 == 0, torch.arange(1000) % 5, -100)
    linear_cross_entropy(torch.randn(1000, 4), W, target)
    assert sum(seen) == 250


def test_confident_rows_keep_their_digits():
    hidden, weight = torch.eye(3)[:1], torch.tensor([[17.0, 0, 0], [0.0, 0, 0], [0.0, 0, 0]])
    hidden, weight = leaves(hidden, weight)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0]))
    loss.backward()
    exact = cross_entropy(torch.tensor([[17.0, 0, 0]], dtype=WIDE), torch.tensor([0])).item()
    assert loss.item() == pytest.approx(exact, rel=3e-7)
    p = -torch.expm1(torch.tensor(-exact, dtype=WIDE)).item()
    assert weight.grad[0, 0].item() == pytest.approx(-p, rel=1e-6)


def test_slope_of_p_near_1_in_bfloat16():
    kind = torch.bfloat16
    hidden = torch.ones(1, 1, dtype=kind)
    weight = torch.tensor([[7.0], [0.0]], dtype=kind, requires_grad=True)
    linear_cross_entropy(hidden, weight, torch.tensor([0])).backward()
    p = torch.sigmoid(torch.tensor(-7.0, dtype=WIDE)).item()  # 1 - .99909
    assert weight.grad[0].item() == pytest.approx(-p, rel=2**-8)


def test_half_precision_goes_in_chunks_of_rows_where_products_cannot_be_float32(monkeypatch):
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        assert not linear_products.serve(H.to(kind))
    assert not linear_products._added_up(H.device, torch.bfloat16)  # asks torch
    monkeypatch.setattr(linear_autograd, "visit", None)
    hidden, weight = leaves(H.bfloat16(), W.bfloat16())
    linear_cross_entropy(hidden, weight, T).backward()


def test_bias_of_minus_infinity_rules_a_class_out():
    bias = torch.zeros(5)
    bias[3] = -torch.inf
    hidden, weight = leaves(H, W)
    target = torch.where(T == 3, 0, T)
    loss, lse = linear_cross_entropy(hidden, weight, target, bias, z_loss=0.1, return_lse=True)
    (loss + lse.sum()).backward()
    others = [0, 1, 2, 4]
    exact, exact_lse = oracle(
        H.double(), W[others].double(), torch.tensor([0, 1, 2, 0, 3, 0]), z_loss=0.1
    )
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-6, atol=1e-6)
    assert torch.equal(weight.grad[3], torch.zeros(4)) and bool(hidden.grad.isfinite().all())


def test_autocast_rounds_the_inputs_and_nothing_else():
    hidden, weight = leaves(H, W)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, T)
    loss.backward()
    h, w = leaves(H.bfloat16().double(), W.bfloat16().double())
    exact, _ = oracle(h, w, T)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    exact.backward()
    assert weight.grad.dtype is torch.float32
    torch.testing.assert_close(weight.grad.double(), w.grad, rtol=2**-8, atol=1e-6)


WRONG = [
    ((H, W.T, T), {}, ShapeError, r"hidden and weight do not fit.*give weight.T: the classes are"),
    ((H, W[0], T), {}, ShapeError, "hidden and weight do not fit each other"),
    ((H, W[:0], T), {}, ShapeError, "there are no classes"),
    ((H, W, T[:5]), {}, ShapeError, r"hidden \(6, 4\), target \(5,\).*integer classes \(6,\)"),
    ((H, W, T[:, None]), {}, ShapeError, "hidden and target do not fit each other"),
    ((H, W, H), {}, ShapeError, r"or probabilities \(6, 5\)"),
    ((H, W, T, W), {}, ShapeError, r"bias does not fit the classes.*\(5,\), one for each class"),
    ((H, W, T + 1), {}, TargetError, r"row 4 of 6 \(1 such rows\).*class 5.*0 \.\. 4"),
    ((H, W, -T), {}, TargetError, r"row 1 of 6.*class -1"),
    ((H, W, T == 1), {}, ArgumentTypeError, "targets cannot be of type torch.bool"),
    ((H, W, [1]), {}, ArgumentTypeError, "the target is no tensor"),
    ((H.long(), W, T), {}, ArgumentTypeError, r"call input.float\(\)"),
    ((H, W.double(), T), {}, ArgumentTypeError, "hidden and weight are of different types"),
    ((H, W.long(), T), {}, ArgumentTypeError, "weight must be a float tensor"),
    ((H, W, T, W[:, 0].half()), {}, ArgumentTypeError, "hidden and bias are of different types"),
    ((H, W, T), {"z_loss": -1}, ArgumentError, "z_loss has a value that cannot be used.*-1"),
    ((H, W, T), {"soft_cap": 0.0}, ArgumentError, "soft_cap.*a finite number > 0, or None"),
    (
        (H, W, T),
        {"label_smoothing": 2},
        ArgumentError,
        r"^linear_cross_entropy: label_smoothing.*a number in \[0, 1\]",
    ),
    ((H, W, T), {"class_weight": W[:4, 0]}, ShapeError, "class_weight does not fit the classes"),
    ((H, W, T), {"sample_weight": -torch.ones(6)}, ArgumentError, "must be finite and >= 0"),
    ((H, W, T), {"sample_weight": torch.ones(5)}, ShapeError, "sample weights do not fit"),
    ((H, W, T), {"reduction": "avg"}, ArgumentError, "unknown reduction 'avg'"),
    ((H, W, T), {"normalizer": 0}, ArgumentError, "normalizer must be finite and > 0"),
]


@pytest.mark.parametrize(("inputs", "options", "error", "text"), WRONG, ids=range(len(WRONG)))
def test_wrong_input_is_answered_before_any_work(monkeypatch, inputs, options, error, text):
    monkeypatch.setattr(linear_chunks, "_logits", None)
    with pytest.raises(error, match=f"(?s){text}"):
        linear_cross_entropy(*inputs, **options)


def test_modules_options_are_checked_when_it_is_made():
    with pytest.raises(UnknownOptionError, match="did you mean 'z_loss'"):
        LinearCrossEntropy(zloss=1.0)
    with pytest.raises(ArgumentError, match="soft_cap"):
        LinearCrossEntropy(soft_cap=-1.0)


MEASURE = """
import resource, torch
from ravine.losses import linear_cross_entropy
hidden = torch.randn(2048, 64, requires_grad=True)
weight = torch.randn(32768, 64, requires_grad=True)
target = torch.randint(32768, (2048,))
def run(count):
    hidden.grad = weight.grad = None
    linear_cross_entropy(hidden[:count], weight, target[:count]).backward()
run(1)
gradients = hidden.nbytes + weight.nbytes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(2048)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, gradients, 2048 * 32768 * 4)
"""


@pytest.mark.slow
def test_memory_of_a_process_stays_below_a_twentieth_of_the_logits():
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120
    )
    grown, gradients, logits = map(int, result.stdout.split())
    assert grown < gradients + 0.05 * logits


@pytest.mark.slow
@pytest.mark.parametrize("width", [8, 128])  # less and more than the rows of a chunk
@pytest.mark.parametrize("options", [{}, {"z_loss": 1e-3, "soft_cap": 30.0, "return_lse": True}])
def test_allocations_stay_below_a_twentieth_of_the_logits(width, options):
    hidden = torch.randn(2048, width, requires_grad=True)
    weight = torch.randn(32768, width)
    weight.requires_grad_()
    target = torch.randint(32768, (2048,))

    def run():
        loss = linear_cross_entropy(hidden, weight, target, **options)
        (loss[0] if options else loss).backward()

    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # thousands of small calls, which wait for each other on a busy machine
    try:
        run()
        hidden.grad = weight.grad = None
        with torch.profiler.profile(profile_memory=True) as seen:
            run()
    finally:
        torch.set_num_threads(threads)
    held = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak - hidden.nbytes - weight.nbytes < 0.05 * 2048 * 32768 * 4


@pytest.mark.parametrize("rows", [1, 70])
def test_a_soft_cap_that_is_reached_has_a_slope(rows):
    """1 - tanh(7)^2 is 3.3e-6: float32 has two digits of it."""
    weight, hidden = torch.tensor([[14.0], [-16.0], [1.0]]), torch.ones(rows, 1)
    bias, exact = torch.zeros(3, requires_grad=True), torch.zeros(3, dtype=WIDE, requires_grad=True)
    target = torch.ones(rows, dtype=torch.int64)
    linear_cross_entropy(hidden, weight, target, bias, soft_cap=2.0).backward()
    logits = torch.nn.functional.linear(hidden.to(WIDE), weight.to(WIDE), exact)
    F.cross_entropy(2 * torch.tanh(logits / 2), target).backward()
    torch.testing.assert_close(bias.grad.to(WIDE), exact.grad, rtol=2e-6, atol=0)
