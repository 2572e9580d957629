"""Steps that are left out: by skip_nonfinite, and under torch's GradScaler."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import ravine.optim
from ravine.errors import ArgumentError
from ravine.schedules import cosine, warmup

SIZES = ((3, 4), (), (5,), (0,))


def weights(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(s, dtype=dtype, generator=generator)) for s in SIZES]


def set_gradients(ws, seed, factor=1.0):
    generator = torch.Generator().manual_seed(seed)
    for w in ws:
        w.grad = (torch.randn(w.shape, dtype=torch.float64, generator=generator) * factor).to(w)


def everything(optimizer, ws):
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.pop("skipped_steps", None)
    return [w.detach().clone() for w in ws], state["state"], state["param_groups"]


def assert_same(before, after):
    torch.testing.assert_close(before, after, rtol=0, atol=0)


def assert_unchanged(before, after):
    assert_same(before[:2], after[:2])
    assert before[2] == after[2]


BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_bad_element_leaves_everything_as_it_was(bad, place, backend):
    options = {"lr": warmup(3) >> cosine(9, peak=0.1), "average": 0.9, "backend": backend}
    ws = weights()
    optimizer = ravine.optim.AdamW(ws, skip_nonfinite=True, **options)
    plain_ws = weights()
    plain = ravine.optim.AdamW(plain_ws, **options)
    for step in range(4):
        for each, o in ((ws, optimizer), (plain_ws, plain)):
            set_gradients(each, step)
            o.step()
        before = everything(optimizer, ws)
        set_gradients(ws, step)
        ws[place].grad.view(-1)[-1] = bad
        optimizer.step()
        assert_unchanged(before, everything(optimizer, ws))
    assert optimizer.skipped_steps == 4
    assert plain.skipped_steps == 0
    assert_same(ws, plain_ws)  # as if the bad batches had never been


@pytest.mark.parametrize(
    ("dtype", "huge"),
    [(torch.float64, 1e300), (torch.float32, 3e38), (torch.bfloat16, 3e38), (torch.float16, 6e4)],
    ids=str,
)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_huge_gradients_are_finite(dtype, huge, backend):
    ws = weights(dtype)
    optimizer = ravine.optim.SGD(ws, lr=1e-3, skip_nonfinite=True, clip_value=1.0, backend=backend)
    for w in ws:
        w.grad = torch.full_like(w, huge)
    before = ws[0].detach().clone()
    optimizer.step()
    assert optimizer.skipped_steps == 0
    assert not torch.equal(before, ws[0])


def test_a_bad_first_step_makes_no_difference():
    ws = weights()
    optimizer = ravine.optim.Adam(ws, lr=0.1, skip_nonfinite=True)
    set_gradients(ws, 1, math.nan)
    optimizer.step()
    set_gradients(ws, 2)
    optimizer.step()
    vs = weights()
    set_gradients(vs, 2)
    ravine.optim.Adam(vs, lr=0.1).step()
    assert_same(ws, vs)
    assert float(optimizer.state[ws[0]]["step"]) == 1


def test_the_option_may_be_turned_on_in_the_middle():
    ws = weights()
    optimizer = ravine.optim.Adam(ws, lr=0.1)
    set_gradients(ws, 1)
    optimizer.step()
    optimizer.param_groups[0]["skip_nonfinite"] = True
    set_gradients(ws, 1, math.nan)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert all(w.isfinite().all() for w in ws)


def test_the_count_is_reported_and_travels():
    ws = weights()
    optimizer = ravine.optim.Adam(ws, lr=0.1, skip_nonfinite=True)
    assert "skip" not in repr(optimizer).split("#")[1]
    set_gradients(ws, 1, math.nan)
    optimizer.step()
    assert repr(optimizer).startswith("Adam(lr=0.1, skip_nonfinite=True)  # ")
    assert ", 1 step left out (gradient not finite)" in repr(optimizer)
    assert "1 step left out (gradient not finite)" in optimizer.explain()
    again = ravine.optim.Adam(weights(), lr=0.1, skip_nonfinite=True)
    again.load_state_dict(optimizer.state_dict())
    for other in (again, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other.skipped_steps == 1


def test_the_value_must_be_a_flag():
    with pytest.raises(ArgumentError, match="expected: True or False"):
        ravine.optim.SGD(weights(), lr=0.1, skip_nonfinite=1)


# -- GradScaler -----------------------------------------------------------------------------------

SCALED = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("AdamW", {"lr": 0.1, "clip_norm": 0.5, "l1": 1e-3}),
    ("Adam", {"lr": 0.1, "clip_value": 0.1, "backend": "reference", "clip_norm": 0.5}),
]


def scaler(scale=1024.0):
    return torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)


@pytest.mark.parametrize("first", [False, True], ids=["in-the-pass", "unscaled-before"])
@pytest.mark.parametrize(("name", "options"), SCALED)
def test_a_scaler_gives_the_unscaled_numbers(name, options, first):
    ws, vs = weights(torch.float32), weights(torch.float32)
    optimizer = getattr(ravine.optim, name)(ws, **options)
    plain = getattr(ravine.optim, name)(vs, **options)
    scale = scaler()
    for step in range(8):
        set_gradients(vs, step)
        set_gradients(ws, step)
        scale.scale(torch.ones(()))
        for w in ws:
            w.grad *= scale.get_scale()  # a power of two: exact
        if first:
            scale.unscale_(optimizer)
        given = [w.grad.clone() for w in ws]
        scale.step(optimizer)
        assert_same(given, [w.grad for w in ws])
        scale.update()
        plain.step()
        if step == 5:  # a step without the scaler between those with it
            for each, o in ((ws, optimizer), (vs, plain)):
                set_gradients(each, 99)
                o.step()
        assert_same(ws, vs)
    assert scale.get_scale() > 1024
    assert not hasattr(optimizer, "grad_scale")


@pytest.mark.parametrize("first", [False, True], ids=["in-the-pass", "unscaled-before"])
def test_a_scaler_skips_and_it_is_counted(first):
    ws = weights(torch.float32)
    optimizer = ravine.optim.Adam(ws, lr=warmup(5) >> cosine(5, peak=0.1))
    scale = scaler()
    for step in range(3):
        scale.scale(torch.ones(()))
        before = everything(optimizer, ws)
        set_gradients(ws, step)
        if step == 1:
            ws[2].grad[3] = math.inf
        if first:
            scale.unscale_(optimizer)
        scale.step(optimizer)
        scale.update()
        if step == 1:
            assert_unchanged(before, everything(optimizer, ws))
    assert optimizer.skipped_steps == 1
    assert optimizer.param_groups[0]["schedule_step"] == 2
    assert scale.get_scale() == 512


def test_mixed_precision_training_equals_torchs():
    nets, results = [], []
    for made in (ravine.optim.SGD, torch.optim.SGD):
        torch.manual_seed(0)
        net = torch.nn.Linear(6, 3)
        optimizer, scale = made(net.parameters(), lr=0.1, momentum=0.9), scaler(2.0**10)
        for step in range(6):
            rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = net(rows * (1e6 if step == 2 else 1)).float().square().sum()
            scale.scale(loss).backward()
            scale.step(optimizer)
            scale.update()
        nets.append([*net.parameters()])
        results.append(scale.get_scale())
    torch.testing.assert_close(*nets, rtol=1e-6, atol=1e-7)
    assert results[0] == results[1]
