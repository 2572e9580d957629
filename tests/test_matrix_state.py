"""Matrix optimizers saved, loaded, copied, exchanged with torch's, and with every option."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from test_matrix_optimizers import NAMES, made, make, random_like, step
from test_rules import assert_close, copies, set_gradients

from ravine.optim import SOAP, Adafactor, Muon

SHAPES = [(4, 4), (4, 4), (2, 3, 4), (3, 2, 2, 2), (5,), ()]


def used(name, steps=5, **options):
    """Weights and their optimizer after some steps, one weight with fewer than the others."""
    weights = made(*SHAPES)
    optimizer = make(name, weights, **options)
    for k in range(steps):
        values = random_like(weights)
        step(optimizer, *(None if k == 1 and i == 1 else g for i, g in enumerate(values)))
    return weights, optimizer


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
@pytest.mark.parametrize("name", NAMES)
def test_goes_on_the_same_after_saving(name, way):
    options = {"precondition_frequency": 3} if name in ("SOAP", "Shampoo") else {}
    weights, optimizer = used(name, average=0.9, **options)
    if way == "file":
        loaded = copies(weights)
        other = make(name, loaded, average=0.9, **options)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
    else:
        copied = (
            pickle.loads(pickle.dumps(optimizer)) if way == "pickle" else copy.deepcopy(optimizer)
        )
        other, loaded = copied, copied.param_groups[0]["params"]
    for k in range(5):
        values = random_like(weights)
        step(optimizer, *values)
        step(other, *values)
        assert_close(weights, loaded, 1e-13, 1e-14, f"step {k}")
    for w, x in zip(weights, loaded, strict=True):
        mine, its = optimizer.state[w], other.state[x]
        assert mine.keys() == its.keys()
        assert all(torch.allclose(mine[n], its[n], rtol=1e-12, atol=1e-13) for n in mine)


def test_a_loaded_state_is_a_copy():
    weights, optimizer = used("SOAP")
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    other = make("SOAP", copies(weights))
    other.load_state_dict(saved)
    step(other, *random_like(weights))
    for key, state in kept["state"].items():
        assert all(torch.equal(value, saved["state"][key][n]) for n, value in state.items()), key


def test_bfloat16_weights_keep_float32_state_when_loaded():
    weights = made((4, 3), dtype=torch.bfloat16)
    optimizer = SOAP(weights)
    step(optimizer, *random_like(weights))
    other = SOAP(copies(weights))
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for (_, mine), (_, its) in zip(optimizer.state.items(), other.state.items(), strict=True):
        for name in ("exp_avg", "GG_0", "Q_1"):
            assert its[name].dtype is torch.float32
            assert torch.equal(its[name], mine[name])


@pytest.mark.parametrize(
    ("ours", "theirs", "shapes"),
    [
        (Muon, torch.optim.Muon, [(4, 3), (2, 5)]),
        (Adafactor, torch.optim.Adafactor, [(4, 3), (2, 5), (3,), (2, 3, 4)]),
    ],
)
@pytest.mark.parametrize("first", ["ours", "torch"])
def test_state_exchange_with_torch(ours, theirs, shapes, first):
    """Some steps with one, then on with the other from its state, beside one that never stopped."""
    options = {"lr": 0.03, "weight_decay": 0.2}
    weights = made(*shapes)
    moved, whole = copies(weights), copies(weights)
    start, end = (ours, theirs) if first == "ours" else (theirs, ours)
    one, never = start(weights, **options), theirs(whole, **options)
    other = end(moved, lr=1.0)
    tolerance = 1e-5 if ours is Muon else 1e-12  # Muon computes in bfloat16
    for k in range(8):
        values = random_like(whole)
        step(never, *values)
        if k == 4:
            other.load_state_dict(one.state_dict())
            with torch.no_grad():
                for a, b in zip(moved, weights, strict=True):
                    a.copy_(b)
        now, of = (one, weights) if k < 4 else (other, moved)
        step(now, *[g.clone() for g in values])
        assert_close(of, whole, tolerance, tolerance, f"step {k}")


def test_options_changed_in_the_middle():
    """An option that needs other passes, or other state, makes the plan anew and keeps the state."""
    weights, optimizer = used("Muon")
    beside, plain = used("Muon", steps=0)
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with torch.no_grad():
        for a, b in zip(beside, weights, strict=True):
            a.copy_(b)
    group = optimizer.param_groups[0]
    group["nesterov"], group["average"] = False, 0.5
    plain.param_groups[0]["nesterov"] = False
    values = random_like(weights)
    step(optimizer, *values)
    step(plain, *values)
    assert_close(weights, beside, 1e-13, 1e-14, "after the change")
    assert optimizer.state[weights[0]]["average"].shape == (4, 4)


def test_weights_replaced_and_gradients_in_other_layouts():
    weights = made((4, 3), (4, 3))
    theirs = copies(weights)
    optimizer, other = make("Muon", weights), make("Muon", theirs)
    for k in range(6):
        values = random_like(weights)
        if k == 3:
            with torch.no_grad():
                weights[0].data = weights[0].detach().clone()
        step(other, *values)
        set_gradients(weights, [values[0].t().contiguous().t(), values[1].clone()])
        optimizer.step()
        assert_close(weights, theirs, 1e-12, 1e-13, f"step {k}")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_bfloat16_weights_rounded_at_random_keep_small_steps(backend):
    """Steps of a fifth of the spacing: lost by rounding to nearest, kept on average at random."""
    gradient = torch.ones(64, 64)  # of rank 1: every element of the orthogonal matrix is about 1/64
    found = {}
    for dtype, chance in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        weight = torch.nn.Parameter(torch.ones(64, 64, dtype=dtype))
        options = {"stochastic_rounding": chance, "weight_decay": 0.0, "backend": backend}
        optimizer = make("Muon", [weight], **{**options, "lr": 0.05})
        for _ in range(20):
            step(optimizer, gradient.to(dtype))
        found[dtype, chance] = 1 - float(weight.detach().double().mean())
    assert found[torch.float32, False] > 0.01
    assert found[torch.bfloat16, False] == 0
    # The mean of 4096 sums of 20 roundings, each of variance at most 2^-18: 5 standard errors.
    assert abs(found[torch.bfloat16, True] - found[torch.float32, False]) < 7e-4
    assert "weights rounded at random" in optimizer.explain()


def test_scaled_gradients_skipped_steps_and_steps_in_backward():
    """What the machinery of a step does besides: for matrices and the rest the same numbers."""
    names = "scaler", "skip_nonfinite", "in_backward"
    ours = {name: made(*SHAPES[:5]) for name in names}
    first = ours[names[0]]
    for name in names[1:]:
        with torch.no_grad():
            for w, v in zip(ours[name], first, strict=True):
                w.copy_(v)
    plain = copies(first)
    reference = make("Muon", plain)
    scaled = make("Muon", ours["scaler"])
    skipping = make("Muon", ours["skip_nonfinite"], skip_nonfinite=True)
    at_once = make("Muon", ours["in_backward"], in_backward=True)
    for k in range(4):
        values = random_like(plain)
        step(reference, *values)
        scaled.grad_scale, scaled.found_inf = torch.tensor(8.0), torch.tensor(0.0)
        step(scaled, *[8 * g for g in values])
        if k == 2:
            step(skipping, *[g * torch.nan if i == 1 else g for i, g in enumerate(values)])
        step(skipping, *values)
        sum((w * g).sum() for w, g in zip(ours["in_backward"], values, strict=True)).backward()
        at_once.step()
        for name in names:
            assert_close(ours[name], plain, 1e-11, 1e-12, f"{name}, step {k}")
    assert skipping.skipped_steps == 1
