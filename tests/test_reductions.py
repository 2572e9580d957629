"""Numbers that an equation takes from all elements: norms, means, sums over the model."""

from __future__ import annotations

import math

import pytest
import torch

import ravine
from ravine.engine.functions import model_sum, sqrt, tensor_mean, tensor_norm, where

BACKENDS = ["cpu", "reference"]


@ravine.update_rule
def normalised(w, g, *, lr):
    size = tensor_norm(g)
    return w - lr * where(size > 0, 1 / size, 0.0) * g


@ravine.update_rule
def centred(w, g, *, lr):
    return w - lr * (g - tensor_mean(g))


@ravine.update_rule
def along(w, g, *, lr):
    return w - lr * g / (1 + model_sum(g * w) ** 2)


@ravine.update_rule
def of_new_state(w, g, m, *, lr, beta=0.5):
    m = beta * m + g
    return w - lr * m / (1 + tensor_norm(m)), m


@ravine.update_rule
def levels(w, g, m, *, lr):
    d = g - tensor_mean(g)
    d = d / (1 + tensor_norm(d))
    m = m + d
    return w - lr * m / sqrt(1 + model_sum(m * m)), m


def by_normalised(ws, gs, states, lrs):
    sizes = [float(g.norm()) for g in gs]
    return [w - lr / (s or math.inf) * g for w, g, s, lr in zip(ws, gs, sizes, lrs, strict=True)]


def by_centred(ws, gs, states, lrs):
    means = [g.sum() / max(1, g.numel()) for g in gs]
    return [w - lr * (g - mean) for w, g, mean, lr in zip(ws, gs, means, lrs, strict=True)]


def by_along(ws, gs, states, lrs):
    total = sum(float((w * g).sum()) for w, g in zip(ws, gs, strict=True))
    return [w - lr * g / (1 + total**2) for w, g, lr in zip(ws, gs, lrs, strict=True)]


def by_of_new_state(ws, gs, states, lrs):
    new = []
    for w, g, state, lr in zip(ws, gs, states, lrs, strict=True):
        m = state["m"] = 0.5 * state.get("m", 0) + g
        new.append(w - lr * m / (1 + m.norm()))
    return new


def by_levels(ws, gs, states, lrs):
    for g, state in zip(gs, states, strict=True):
        d = g - g.sum() / max(1, g.numel())
        state["m"] = state.get("m", 0) + d / (1 + d.norm())
    ms = [state["m"] for state in states]
    total = sum(float((m * m).sum()) for m in ms)
    return [w - lr * m / math.sqrt(1 + total) for w, m, lr in zip(ws, ms, lrs, strict=True)]


CASES = {
    normalised: (by_normalised, 2),
    centred: (by_centred, 2),
    along: (by_along, 2),
    of_new_state: (by_of_new_state, 2),
    levels: (by_levels, 4),
}
SHAPES = [(7, 5), (), (1,), (0, 3), (2, 3, 4), (1500,)]


def prepared(w, g, options, clip):
    """Return the gradient after the options, in the order in which the step has them."""
    g = g * clip
    if "clip_value" in options:
        g = g.clamp(-options["clip_value"], options["clip_value"])
    return g + 2 * options.get("l2", 0) * w + options.get("l1", 0) * torch.sign(w)


@pytest.mark.parametrize(
    "options", [{}, {"clip_norm": 2.0, "clip_value": 0.5, "l2": 0.1, "l1": 0.1}], ids=len
)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.__name__)
def test_against_the_formula_with_groups_options_and_missing_gradients(rule, backend, options):
    oracle, _ = CASES[rule]
    generator = torch.Generator().manual_seed(5)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    values.append(torch.randn(9, 4, generator=generator, dtype=torch.float64)[::2, 1:3])
    ours = [torch.nn.Parameter(value) for value in values]
    theirs = [w.detach().clone() for w in ours]
    # The weight with gaps goes by the reference: a sum over the model crosses executors.
    groups = [
        {"params": ours[:3], "backend": backend},
        {"params": ours[3:6], "backend": backend, "lr": 0.3},
        {"params": ours[6:]},
    ]
    rates = [0.1] * 3 + [0.3] * 3 + [0.1]
    optimizer = rule(groups, lr=0.1, **options)
    states = [{} for _ in ours]
    for step in range(8):
        for k, w in enumerate(ours):
            scale = 10.0 ** ((3 * step + k) % 5 - 3)
            w.grad = scale * torch.randn(w.shape, generator=generator, dtype=torch.float64)
            if (step, k) in ((1, 0), (2, 4), (3, 6)) or step == 4:
                w.grad = None
        kept = [None if w.grad is None else w.grad.clone() for w in ours]
        optimizer.step()
        active = [k for k, g in enumerate(kept) if g is not None]
        norm = math.sqrt(sum(float(kept[k].pow(2).sum()) for k in active))
        clip = min(1.0, options.get("clip_norm", math.inf) / (norm + 1e-6))
        gs = [prepared(theirs[k], kept[k], options, clip) for k in active]
        ws, held = [theirs[k] for k in active], [states[k] for k in active]
        for k, new in zip(active, oracle(ws, gs, held, [rates[k] for k in active]), strict=True):
            theirs[k] = new
            assert torch.equal(ours[k].grad, kept[k])
        for w, v in zip(ours, theirs, strict=True):
            torch.testing.assert_close(w.detach(), v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.__name__)
def test_explain_counts_the_sweeps(rule):
    w = torch.nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    optimizer = rule([w], lr=0.1)
    optimizer.step()
    assert f"cpu kernel of {rule.__name__} in {CASES[rule][1]} sweeps:" in optimizer.explain()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e30, 1e-30, 1e38])
def test_a_norm_neither_overflows_nor_vanishes_in_float32(size, backend):
    w = torch.nn.Parameter(torch.zeros(4))
    w.grad = torch.full((4,), size)
    normalised([w], lr=1.0, backend=backend).step()
    torch.testing.assert_close(w.detach(), torch.full((4,), -0.5), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_norms_of_narrow_types_are_those_of_float64(dtype):
    generator = torch.Generator().manual_seed(1)
    value, g = (torch.randn(3000, generator=generator).to(dtype) for _ in range(2))
    for backend in BACKENDS:
        w = torch.nn.Parameter(value.clone())
        w.grad = g
        normalised([w], lr=1.0, backend=backend).step()
        want = value.double() - g.double() / g.double().norm()
        torch.testing.assert_close(
            w.detach(), want.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-8
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_spoils_what_it_is_part_of(bad, backend):
    for rule, spoiled in ((of_new_state, [True, False]), (along, [True, True])):
        ws = [torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
        for w in ws:
            w.grad = torch.ones_like(w)
        ws[0].grad[1] = bad
        rule(ws, lr=0.1, backend=backend).step()
        moved = [bool((w.detach() != 1).all()) and bool(w.isfinite().all()) for w in ws]
        assert moved[1] != spoiled[1] or (rule is along and math.isinf(bad))
        assert not moved[0]


def test_sums_over_many_chunks_are_the_same_on_any_number_of_threads():
    generator = torch.Generator().manual_seed(2)
    values = [torch.randn(size, generator=generator) for size in (300_000, 70_000, 5)]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            ws = [torch.nn.Parameter(value.clone()) for value in values]
            optimizer = levels(ws, lr=0.1)
            for _ in range(3):
                for w in ws:
                    w.grad = w.detach().clone()
                optimizer.step()
            found.append([w.detach() for w in ws])
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_a_complex_weight_counts_with_both_parts():
    g = torch.tensor([3 + 4j, 12 - 84j], dtype=torch.complex128)
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex128))
    w.grad = g
    normalised([w], lr=1.0).step()
    torch.testing.assert_close(w.detach(), -g / g.abs().pow(2).sum().sqrt(), rtol=1e-12, atol=0)


def test_weights_of_two_types_and_executors_share_a_sum():
    a = torch.nn.Parameter(torch.ones(2))
    b = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    c = torch.nn.Parameter(torch.ones(1, dtype=torch.complex128))
    for w in (a, b, c):
        w.grad = torch.ones_like(w)
    along([a, b, c], lr=1.0).step()
    for w in (a, b, c):
        want = torch.full_like(w.detach(), 1 - 1 / 37)  # the sum of g w is 2 + 3 + 1
        torch.testing.assert_close(w.detach().real, want.real, rtol=1e-6, atol=0)


def test_an_optimizer_without_any_gradient_does_nothing():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = along([w], lr=1.0)
    optimizer.step()
    w.grad = torch.ones(2)
    optimizer.step()
    w.grad = None
    before = w.detach().clone()
    optimizer.step()
    assert torch.equal(w.detach(), before)
    assert optimizer.state[w]["step"] == 1
