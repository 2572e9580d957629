"""linear_cross_entropy in chunks of classes, as half precision on a GPU has it, by plain operations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linear_cases import WIDE, Case, cases, oracle, ours
from linear_class_support import assert_rounded, by_classes, exact, few_classes, halved, put

from ravine.losses import (
    cross_entropy,
    linear_classes,
    linear_cross_entropy,
    linear_products,
)

assert by_classes and few_classes
pytestmark = pytest.mark.usefixtures("few_classes")
HALVES = (torch.bfloat16, torch.float16)
EACH = pytest.mark.parametrize("kind", HALVES, ids=str)


def some(rows=23, classes=19, width=5, kind=torch.bfloat16, **options):
    """Return a case in half precision, in float64."""
    case = Case(
        torch.randn(rows, width),
        torch.randn(classes, width),
        torch.randint(classes, (rows,)),
        torch.randn(classes),
        options,
    )
    return halved(case, kind)


def float32(options):
    return {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def compare(case, kind, times=1.0, with_lse=False):
    """Compare value, logsumexp and gradients with all logits in float64; return our leaves."""
    single = Case(case.hidden, case.weight, case.target, case.bias, float32(case.options))
    if case.target.is_floating_point():
        single.target = case.target.float()
        case.target = single.target.double()
    case.options = {
        k: v.double() if isinstance(v, torch.Tensor) else v for k, v in single.options.items()
    }
    mine = single.leaves(kind)
    loss, lse = ours(single, *mine, return_lse=True)
    back = times * (torch.rand(loss.shape, dtype=torch.float32) + 0.5)
    back_lse = torch.randn(lse.shape) if with_lse else None
    arriving = [back, back_lse] if with_lse else [back]
    torch.autograd.backward([loss, lse][: len(arriving)], arriving)
    wide = [t.double() for t in arriving]
    (value, want_lse), gradients, sums = exact(case, *wide)
    largest = float(max(t.abs().max() for t in wide)) * float(value.detach().abs().max() + 10)
    torch.testing.assert_close(loss.double(), value, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(lse.double(), want_lse, rtol=1e-6, atol=2e-6)
    given = [t for t in mine if t is not None]
    for t, want, total in zip(given, gradients, sums, strict=True):
        assert t.grad.dtype is kind and t.grad.shape == t.shape
        assert_rounded(t.grad, want, total, largest)
    return mine


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cases(), st.sampled_from(HALVES), st.booleans())
def test_every_combination_of_options(case, kind, with_lse):
    compare(halved(case, kind), kind, with_lse=with_lse)


@EACH
@pytest.mark.parametrize("times", [2.0**16, 2.0**-10, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_arrives_comes_before_the_rounding(kind, times, reduction):
    """The mean of 300 rows in float16: most slopes by logits are below what it holds well."""
    case = some(300, 40, 8, kind, reduction=reduction)
    compare(case, kind, times if reduction == "mean" else times / 300)


@EACH
def test_logits_may_lie_where_the_gradient_of_the_weight_will(kind, monkeypatch):
    lent, memory = [], linear_classes.memory
    monkeypatch.setattr(
        linear_classes, "memory", lambda g, *rest: (lent.append(g.lent), memory(g, *rest))[1]
    )
    case = some(5, 203, 17, kind, z_loss=0.1, soft_cap=4.0)
    case.target[3] = -100
    whole = compare(case, kind)
    assert lent == [True, True, False]  # forwards both groups of chunks share what the first has
    frozen = [t.detach().requires_grad_(k != 1) for k, t in enumerate(whole)]
    ours(case, *frozen).backward()
    turned = whole[1].detach().t().contiguous().t().requires_grad_()
    ours(case, whole[0].detach(), turned, whole[2].detach()).backward()
    assert not any(lent[3:])  # frozen, or of another memory order
    assert turned.grad.stride() == turned.stride()


@EACH
def test_sample_weights_of_any_size(kind):
    for size in (1e-30, 1e-6, 1e6):
        weight = size * (torch.rand(23) + 0.5)
        compare(some(kind=kind, sample_weight=weight, class_weight=torch.rand(19) * 1e3), kind)


def test_small_slopes_of_float16_are_rounded_as_large_ones():
    """Class 1 has p of e-9 in every row, far below the smallest float16; a loss scale asks for it."""
    kind = torch.float16
    hidden = torch.ones(64, 1, dtype=kind)
    weight = torch.tensor([[0.0], [-18.0], [0.0]], dtype=kind, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.zeros(64, dtype=torch.int64))
    (loss * 2.0**16).backward()
    p = math.exp(-18) / (2 + math.exp(-18))
    assert weight.grad[1].item() == pytest.approx(2**16 * p, rel=2**-9, abs=0)


@pytest.mark.parametrize("how", ["ignored", "weight 0", "soft, weight 0"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_rows_left_out_are_not_computed(how, reduction, monkeypatch):
    kind, seen = torch.bfloat16, set()
    monkeypatch.setattr(
        linear_products, "put", lambda o, a, b: (seen.add((len(a), a.shape[1])), put(o, a, b))
    )
    case = some(8, 9, 3, reduction=reduction, z_loss=0.1)
    hidden, weight, bias = case.leaves(kind)
    target, factor = case.target.clone(), torch.ones(8)
    out = [2, 5, 7]
    with torch.no_grad():
        hidden[out] = torch.tensor([[torch.nan], [torch.inf], [1e30]], dtype=kind)
    if how == "ignored":
        target[out] = -100
    else:
        factor[out] = 0.0
    if how.startswith("soft"):
        target = F.one_hot(target, 9).float()
    loss, lse = linear_cross_entropy(
        hidden, weight, target, bias, sample_weight=factor, return_lse=True, **case.options
    )
    (loss.sum() + lse.sum()).backward()
    assert seen == {(5, 3), (4, 5), (1, 5)}  # rows x width; classes of a chunk x rows
    kept = [k for k in range(8) if k not in out]
    h, w, b = (t.detach().clone().requires_grad_() for t in (hidden[kept], weight, bias))
    want, want_lse = linear_cross_entropy(h, w, target[kept], b, return_lse=True, **case.options)
    (want.sum() + want_lse.sum()).backward()
    torch.testing.assert_close(loss[kept] if loss.ndim else loss, want, rtol=1e-6, atol=0)
    assert torch.equal(lse[kept], want_lse) and not lse[out].any()
    assert torch.equal(weight.grad, w.grad) and torch.equal(bias.grad, b.grad)
    assert torch.equal(hidden.grad[kept], h.grad) and not hidden.grad[out].any()


def test_all_rows_ignored_and_no_rows():
    for rows in (3, 0):
        hidden = torch.full((rows, 4), torch.nan, dtype=HALVES[0], requires_grad=True)
        weight = torch.randn(5, 4, dtype=HALVES[0], requires_grad=True)
        target = torch.full((rows,), -100)
        reduction = "mean" if rows else "sum"
        loss = linear_cross_entropy(hidden, weight, target, weight[:, 0], reduction=reduction)
        loss.backward()
        assert loss == 0 and not hidden.grad.any() and not weight.grad.any()


@EACH
@pytest.mark.parametrize("place", [0, 5, 8], ids=["first chunk", "second", "last"])
@pytest.mark.parametrize("soft", [False, True], ids=["class", "soft"])
def test_confident_rows_keep_their_digits(kind, place, soft):
    """The logits are 17 and eight times 0, or 40 and so on: the loss is log1p(8 exp(-17))."""
    for margin in (17.0, 40.0):
        weight = torch.zeros(9, 1, dtype=kind)
        weight[place] = margin
        weight.requires_grad_()
        hidden = torch.ones(1, 1, dtype=kind, requires_grad=True)
        target = torch.tensor([place])
        given = F.one_hot(target, 9).float() if soft else target
        loss = linear_cross_entropy(hidden, weight, given)
        want = math.log1p(8 * math.exp(-margin))
        assert loss.item() == pytest.approx(want, rel=3e-7, abs=0)
        if kind is torch.bfloat16 or margin == 17:  # 1e-17 is no float16
            scale = 2.0**30 if kind is torch.float16 else 1.0
            (loss * scale).backward()
            got = weight.grad.double() / scale
            assert got[place].item() == pytest.approx(math.expm1(-want), rel=2**-8, abs=0)
            assert got[place - 1].item() == pytest.approx(-math.expm1(-want) / 8, rel=2**-8, abs=0)


@EACH
def test_a_soft_cap_that_is_reached_has_a_slope(kind):
    """1 - tanh(7)^2 is 3.3e-6: float32 has two digits of it."""
    case = Case(torch.ones(1, 1), torch.tensor([[14.0], [-16.0], [1.0]]), torch.tensor([1]), None)
    case.options = {"soft_cap": 2.0, "reduction": "sum"}
    compare(halved(case, kind), kind)


def test_ties_and_infinities_across_chunks():
    kind = torch.bfloat16
    bias = torch.tensor([-torch.inf] * 5 + [3.0, 0.0, 3.0, -torch.inf, 3.0, 1.0], dtype=kind)
    hidden, weight = torch.zeros(2, 1, dtype=kind), torch.zeros(11, 1, dtype=kind)
    target = torch.tensor([5, 10])
    both = linear_cross_entropy(hidden, weight, target, bias, reduction="none", return_lse=True)
    logits = bias.double().expand(2, 11)
    want = F.cross_entropy(logits, target, reduction="none"), logits.logsumexp(1)
    for got, expected in zip(both, want, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=3e-7, atol=0)
    smoothed = linear_cross_entropy(hidden, weight, target, bias, label_smoothing=0.1)
    expected = cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(smoothed.double(), expected, rtol=1e-6, atol=0)
    bias.fill_(-torch.inf)
    bias[3] = bias[9] = torch.inf
    bias.requires_grad_()
    same = linear_cross_entropy(hidden, weight, torch.tensor([3, 4]), bias, reduction="none")
    same.sum().backward()
    assert same.tolist() == [pytest.approx(math.log(2)), math.inf]
    assert bias.grad.tolist() == [0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3)), ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_every_subset_of_frozen_inputs(wanted, reduction):
    case = some(reduction=reduction)
    case.target[4] = -100
    mine, whole = case.leaves(HALVES[0]), case.leaves(HALVES[0])
    for t, want in zip(mine, wanted, strict=True):
        t.requires_grad_(want)
    loss, other = ours(case, *mine), ours(case, *whole)
    assert loss.requires_grad is any(wanted) and torch.equal(loss, other)
    if not any(wanted):
        return
    loss.sum().backward()
    other.sum().backward()
    for a, b, want in zip(mine, whole, wanted, strict=True):
        assert torch.equal(a.grad, b.grad) if want else a.grad is None


def test_ways_back():
    """Twice, of logsumexp alone, differentiated again, of many at once, after a change."""
    case = some()
    leaves = case.leaves(HALVES[0])
    loss, lse = ours(case, *leaves, return_lse=True)
    first = torch.autograd.grad(loss * 2, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(a, 2 * b) for a, b in zip(first, second, strict=True))
    arriving = torch.randn(23)
    alone = torch.autograd.grad(lse, leaves, arriving, retain_graph=True)
    _, want, sums = exact(case, torch.zeros((), dtype=WIDE), arriving.double())
    for a, b, total in zip(alone, want, sums, strict=True):
        assert_rounded(a, b, total, 10.0)
    wide = case.leaves()
    value, _ = oracle(wide[0], wide[1], case.target, wide[2])
    twice = []
    for found, by in ((loss, leaves), (value, wide)):
        slopes = torch.autograd.grad(found, by, create_graph=True)
        twice.append(torch.autograd.grad(sum(s.double().square().sum() for s in slopes), by))
    for a, b in zip(*twice, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.02, atol=0.02 * float(b.abs().max()))
    many = torch.autograd.grad(
        loss, leaves, torch.tensor([1.0, 2.0]), is_grads_batched=True, retain_graph=True
    )
    for a, b in zip(many, second, strict=True):
        torch.testing.assert_close(a[1], 2 * b, rtol=2**-6, atol=1e-3)
    with torch.no_grad():
        leaves[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaves)


def test_on_the_way_back_the_host_reads_nothing(monkeypatch):
    case = some(z_loss=0.1, soft_cap=5.0, label_smoothing=0.1)
    case.target[3] = -100
    leaves = case.leaves(HALVES[1])
    loss, lse = ours(case, *leaves, return_lse=True)
    arriving = [torch.tensor(65536.0), torch.ones(23)]

    def refuse(tensor, *_):
        raise AssertionError("the host would wait for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "nonzero"):
            patch.setattr(torch.Tensor, name, refuse)
        found = torch.autograd.grad([loss, lse], leaves, arriving)
    assert all(t.isfinite().all() for t in found)


def test_a_row_of_nan_spoils_its_own_gradient_by_hidden_only():
    case = some(kind=HALVES[1])
    case.target[4] = 77  # unchecked, it makes its row NaN
    hidden, weight, bias = case.leaves(HALVES[1])
    losses = linear_cross_entropy(hidden, weight, case.target, bias, reduction="none", check="off")
    (losses * 256).sum().backward()
    assert losses.isnan().nonzero().tolist() == [[4]]
    assert hidden.grad.isfinite().all(1).tolist() == [k != 4 for k in range(23)]
    assert weight.grad.isnan().all()


def test_autocast_reaches_it():
    hidden, weight = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    target = torch.arange(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, target)
        loss.backward()  # within, too
    h, w = (t.detach().bfloat16().double().requires_grad_() for t in (hidden, weight))
    want, _ = oracle(h, w, target)
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    want.backward()
    assert weight.grad.dtype is torch.float32
    torch.testing.assert_close(weight.grad.double(), w.grad, rtol=2**-6, atol=2**-8)
