"""linear_cross_entropy gives the numbers of all logits at once, for every option and type."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from linear_cases import WIDE, Case, cases, oracle, ours, small_chunks, theirs

from ravine.losses import LinearCrossEntropy, linear_cross_entropy
from ravine.losses.linear_chunks import chunk_rows


def plain_case(rows=11, classes=9, width=4, **options):
    target = torch.randint(classes, (rows,))
    return Case(
        torch.randn(rows, width, dtype=WIDE),
        torch.randn(classes, width, dtype=WIDE),
        target,
        torch.randn(classes, dtype=WIDE),
        options,
    )


def close(found, exact, rtol=1e-12, atol=1e-13):
    assert found is not None
    torch.testing.assert_close(found.double(), exact, rtol=rtol, atol=atol)


def check(case, kind=WIDE, rtol=1e-12, atol=1e-13):
    """Compare value, logsumexp and gradients with the oracle's."""
    mine, other = case.leaves(kind), case.leaves(WIDE)
    with small_chunks():
        loss, lse = ours(case, *mine, return_lse=True)
        exact, exact_lse = theirs(case, *other)
        back = torch.rand(exact.shape, dtype=WIDE) + 0.5
        loss.backward(back.to(loss.dtype))
    exact.backward(back)
    close(loss, exact, rtol, atol)
    close(lse, exact_lse, rtol, atol)
    for a, b in zip(mine, other, strict=True):
        if a is not None:
            assert a.grad.dtype is kind
            close(a.grad, b.grad, rtol, atol)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_combination_of_options_in_lock_step_with_all_logits(case):
    check(case)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_float32(case):
    case.target = case.target.float() if case.target.is_floating_point() else case.target
    case.options = {
        k: v.float() if isinstance(v, torch.Tensor) else v for k, v in case.options.items()
    }
    exact = Case(
        *(None if t is None else t.float().double() for t in (case.hidden, case.weight)),
        case.target,
        None if case.bias is None else case.bias.float().double(),
        case.options,
    )
    mine, other = exact.leaves(torch.float32), exact.leaves()
    with small_chunks():
        loss = ours(exact, *mine)
    exact.options = {
        k: v.double() if isinstance(v, torch.Tensor) else v for k, v in exact.options.items()
    }
    exact.target = exact.target.double() if exact.target.is_floating_point() else exact.target
    value, _ = theirs(exact, *other)
    loss.sum().backward()
    value.sum().backward()
    close(loss, value, 1e-5, 2e-5)
    for a, b in zip(mine, other, strict=True):
        if a is not None:
            close(a.grad, b.grad, 1e-5, 2e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_half_precision_is_rounded_once(kind, reduction):
    case = plain_case(40, 70, z_loss=0.01, reduction=reduction)
    case = Case(*(t.to(kind) for t in (case.hidden, case.weight)), case.target,
                case.bias.to(kind), case.options)  # fmt: skip
    mine, other = case.leaves(kind), case.leaves()
    with small_chunks():
        loss = ours(case, *mine)
    exact, _ = theirs(case, *other)
    assert loss.dtype is torch.float32
    loss.sum().backward()
    exact.sum().backward()
    close(loss, exact, 1e-6, 1e-6)
    for a, b in zip(mine, other, strict=True):
        close(a.grad, b.grad, torch.finfo(kind).eps * 0.51, 1e-6)


def test_scaled_loss_keeps_what_float16_cannot_hold():
    case = plain_case(400)
    mine, other = case.leaves(torch.float16), case.leaves(torch.float16)
    (ours(case, *mine) * 1024).backward()
    wide = [t.detach().double().requires_grad_() for t in other]
    (theirs(case, *wide)[0] * 1024).backward()
    for a, b in zip(mine, wide, strict=True):
        close(a.grad, b.grad, 6e-4, 3e-7)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (2, 1, 3)])
def test_any_leading_shape(shape):
    hidden, weight = torch.randn(*shape, 4, dtype=WIDE), torch.randn(6, 4, dtype=WIDE)
    target = torch.randint(6, shape)
    loss = linear_cross_entropy(hidden, weight, target, reduction="none")
    exact, _ = oracle(hidden.reshape(-1, 4), weight, target.reshape(-1), reduction="none")
    assert loss.shape == shape
    close(loss.reshape(-1), exact)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torchs_own_chunked(reduction):
    case = plain_case(200, 50, 8)
    mine, other = case.leaves(), case.leaves()
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=16)
    exact = F.linear_cross_entropy(
        other[0], other[1], case.target, linear_bias=other[2], reduction=reduction, options=options
    )
    loss = ours(case, *mine, reduction=reduction)
    close(loss, exact)
    back = torch.rand_like(exact)
    loss.backward(back)
    exact.backward(back)
    for a, b in zip(mine, other, strict=True):
        close(a.grad, b.grad)


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3)), ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_every_subset_of_frozen_inputs(wanted, reduction):
    case = plain_case(reduction=reduction)
    case.target[4] = -100
    mine, other = case.leaves(), case.leaves()
    for t, want in zip(mine, wanted, strict=True):
        t.requires_grad_(want)
    with small_chunks():
        loss = ours(case, *mine)
    exact = theirs(case, *other)[0]
    close(loss, exact.detach())
    assert loss.requires_grad is any(wanted)
    if not any(wanted):
        return
    with small_chunks():
        loss.sum().backward()
    exact.sum().backward()
    for a, b, want in zip(mine, other, wanted, strict=True):
        if want:
            close(a.grad, b.grad)
        else:
            assert a.grad is None


def test_weight_shared_with_an_embedding():
    words = torch.randint(9, (2, 6))
    target = torch.randint(9, (2, 6))
    own = torch.randn(9, 4, dtype=WIDE, requires_grad=True)
    other = own.detach().clone().requires_grad_()
    linear_cross_entropy(torch.tanh(F.embedding(words, own)), own, target).backward()
    oracle(torch.tanh(F.embedding(words, other)), other, target)[0].backward()
    close(own.grad, other.grad)


def test_normalizer_makes_accumulation_exact():
    case = plain_case(20)
    case.target[::3] = -100
    count = int((case.target >= 0).sum())
    whole, parts = case.leaves(), case.leaves()
    ours(case, *whole).backward()
    for piece in (slice(0, 3), slice(3, 20)):
        linear_cross_entropy(
            parts[0][piece], parts[1], case.target[piece], parts[2], normalizer=count
        ).backward()
    for a, b in zip(parts, whole, strict=True):
        close(a.grad, b.grad)


def test_module_is_the_function_with_its_options():
    case = plain_case(z_loss=0.1, soft_cap=3.0, label_smoothing=0.2)
    module = LinearCrossEntropy(**case.options)
    found = module(case.hidden, case.weight, case.target, case.bias, normalizer=5)
    assert found == ours(case, case.hidden, case.weight, case.bias, normalizer=5)
    assert repr(module) == "linear_cross_entropy(z_loss=0.1, soft_cap=3.0, label_smoothing=0.2)"
    assert not list(module.parameters())


def test_rows_in_a_chunk():
    assert [chunk_rows(n) for n in (1, 1000, 2048, 4096, 10**6)] == [64, 64, 96, 192, 256]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [90, 130, 600])  # logits inside the gradient: none, some, all
def test_chunks_as_they_are_used(width, kind):
    hidden, weight = torch.randn(500, width).to(kind), torch.randn(3001, width).to(kind) * 0.1
    target = torch.randint(3001, (500,))
    target[:20] = -100
    case = Case(hidden, weight, target, torch.randn(3001).to(kind))
    mine, other = case.leaves(kind), case.leaves()
    ours(case, *mine).backward()
    theirs(case, *other)[0].backward()
    rtol, atol = (1e-5, 1e-8) if kind is torch.float32 else (2**-8, 1e-8)
    for a, b in zip(mine, other, strict=True):
        close(a.grad, b.grad, rtol, atol)
