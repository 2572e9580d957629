"""Lean state saved, loaded, converted and resumed."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from lean_support import numbers

from ravine.errors import ShapeError
from ravine.optim import Adam, AdamW

LEAN = ["bfloat16", "int8"]


def weights(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 130), (33,), (16, 8, 6, 6))
    made = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    made[2] = made[2].contiguous(memory_format=torch.channels_last)
    return [torch.nn.Parameter(w) for w in made]


def step(params, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for w in params:
        w.grad = torch.randn(w.shape, generator=generator).to(w.dtype)
    optimizer.step()


def put_in_order(params, optimizer):
    """Bring loaded state into its form; a weight without a gradient is not stepped."""
    for w in params:
        w.grad = None
    optimizer.step()


def through_a_file(what):
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, torch.as_tensor(other[name], dtype=value.dtype)), name
        assert value.dtype == other[name].dtype, name


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state_dtype", ["float32", *LEAN])
def test_a_resumed_run_has_the_same_bits(state_dtype, dtype, backend):
    options = {"state_dtype": state_dtype, "stochastic_rounding": True, "rounding_seed": 7}
    options |= {"backend": backend, "average": 0.9, "lr": 0.01}
    whole = weights(dtype)
    optimizer = AdamW(whole, **options)
    for k in range(6):
        step(whole, optimizer, k)
        if k == 2:
            saved = through_a_file({"w": [w.detach() for w in whole], "o": optimizer.state_dict()})
    resumed = [torch.nn.Parameter(w) for w in saved["w"]]
    again = AdamW(resumed, **options | {"rounding_seed": 0})  # the seed is in the file
    again.load_state_dict(saved["o"])
    for k in range(3, 6):
        step(resumed, again, k)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(optimizer.state.values(), again.state.values(), strict=True):
        equal(a, b)


@pytest.mark.parametrize("state_dtype", LEAN)
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alike(state_dtype, way):
    params = weights()
    optimizer = Adam(params, state_dtype=state_dtype)
    step(params, optimizer, 0)
    copied, other = way((params, optimizer))
    step(params, optimizer, 1)
    step(copied, other, 1)
    for a, b in zip(params, copied, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("saving", ["torch", "ravine"])
def test_full_state_is_rounded_to_the_nearest(saving):
    params = weights()
    full = (torch.optim.Adam if saving == "torch" else Adam)(params)
    for k in range(3):
        step(params, full, k)
    for state_dtype in LEAN:
        lean = Adam(params, state_dtype=state_dtype)
        lean.load_state_dict(full.state_dict())
        assert lean.param_groups[0]["state_dtype"] == state_dtype
        put_in_order(params, lean)
        for w in params:
            for name, kind in (("exp_avg", "signed"), ("exp_avg_sq", "nonnegative")):
                exact, ours = full.state[w][name], lean.state[w]
                if state_dtype == "bfloat16":
                    assert torch.equal(ours[name], exact.to(torch.bfloat16))
                elif w.numel() < 4096:
                    assert torch.equal(ours[name], exact)
                else:
                    assert name not in ours
                    held = torch.tensor(numbers(ours, name, kind)).as_strided(w.shape, w.stride())
                    room = exact.abs() / 16 + ours[f"{name}_scales"].max() / 8
                    assert ((held - exact).abs() <= room).all()


@pytest.mark.parametrize("state_dtype", LEAN)
def test_lean_state_becomes_full_exactly(state_dtype):
    params = weights()
    lean = Adam(params, state_dtype=state_dtype)
    for k in range(3):
        step(params, lean, k)
    saved = through_a_file(lean.state_dict())
    full = Adam(params, lr=0.0, betas=(0.0, 0.0))
    full.load_state_dict(saved)
    assert full.param_groups[0]["state_dtype"] == "float32"
    wanted = {}
    for k, w in enumerate(params):
        for name, kind in (("exp_avg", "signed"), ("exp_avg_sq", "nonnegative")):
            if f"{name}_codes" in saved["state"][k]:
                held = torch.tensor(numbers(lean.state[w], name, kind))
                wanted[k, name] = held.as_strided(w.shape, w.stride())
            else:
                wanted[k, name] = lean.state[w][name].double()
    put_in_order(params, full)
    for (k, name), values in wanted.items():
        held = full.state[params[k]][name]
        assert held.dtype is torch.float32
        assert held.stride() == params[k].stride()
        assert torch.equal(held, values.float())


def test_codes_follow_a_weight_laid_out_otherwise():
    params = weights()
    lean = Adam(params, state_dtype="int8")
    step(params, lean, 0)
    saved = lean.state_dict()
    plain = [torch.nn.Parameter(w.detach().contiguous()) for w in params]
    other = Adam(plain, state_dtype="int8")
    other.load_state_dict(saved)
    put_in_order(plain, other)
    w, v = params[2], plain[2]
    was = torch.tensor(numbers(lean.state[w], "exp_avg", "signed")).as_strided(w.shape, w.stride())
    now = torch.tensor(numbers(other.state[v], "exp_avg", "signed")).view(v.shape)
    assert ((was - now).abs() <= was.abs() / 16 + 1e-5).all()


def test_torch_says_what_it_misses():
    params = weights()
    lean = Adam(params, state_dtype="int8")
    step(params, lean, 0)
    theirs = torch.optim.Adam(params)
    theirs.load_state_dict(
        {**lean.state_dict(), "param_groups": theirs.state_dict()["param_groups"]}
    )
    with pytest.raises(KeyError, match="exp_avg"):  # not codes taken for numbers
        step(params, theirs, 1)


def test_codes_of_another_shape():
    params = weights()
    lean = Adam(params, state_dtype="int8")
    step(params, lean, 0)
    state = lean.state[params[0]]
    state["exp_avg_codes"] = state["exp_avg_codes"][:50]
    lean.state = lean.state.copy()
    with pytest.raises(ShapeError, match="the state 'exp_avg' does not fit its weight"):
        step(params, lean, 1)
