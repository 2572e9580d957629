"""Matrix rules with momentum in bfloat16 and 8 bits: memory, numbers, saving, words."""

from __future__ import annotations

import copy

import pytest
import torch
from lean_support import numbers
from test_lean_saving import equal, put_in_order, step, through_a_file
from test_lean_state import LEAN, parameters, state_bytes, train

from ravine.errors import ArgumentError, EquationError
from ravine.optim import SOAP, Adafactor, Muon, Shampoo
from ravine.optim.lean_state import flat
from ravine.rules.matrix_rule import DESCEND, elementwise, matrices, matrix_rule

SHAPES = [(64, 100), (64, 100), (100, 64), (8, 3, 3, 3), (5,)]
"""Two in one stack, one laid out otherwise below, one too small for 8 bits, one for AdamW."""


def weights(dtype=torch.float32):
    made = parameters(*SHAPES, dtype=dtype)
    made[2] = torch.nn.Parameter(made[2].detach().t().contiguous().t())
    return made


def test_the_memory_of_momentum_and_words():
    sizes = {}
    for state_dtype in ("float32", *LEAN):
        optimizer = Muon(parameters((256, 512), (256, 512)), state_dtype=state_dtype)
        train(optimizer, 1)
        sizes[state_dtype] = state_bytes(optimizer)
    assert sizes["bfloat16"] == 2 * 2 * 131072
    assert sizes["int8"] == 2 * (131072 + 4 * 512)
    assert "Muon of 2 x (256, 512)" in optimizer.explain()
    assert "moments in int8" in optimizer.explain()
    plain = Shampoo(parameters((8, 8)), state_dtype="bfloat16")  # without momentum
    train(plain, 1)
    assert "bfloat16" not in plain.explain()


@pytest.mark.parametrize("rule", [Muon, Shampoo])
@pytest.mark.parametrize("state_dtype", LEAN)
def test_executors_agree(state_dtype, rule):
    ran = []
    for backend in ("cpu", "reference"):
        options = {"ns_dtype": "float32"} if rule is Muon else {"momentum": 0.9}
        ours = weights(torch.bfloat16)
        optimizer = rule(
            ours,
            lr=0.05,
            state_dtype=state_dtype,
            backend=backend,
            stochastic_rounding=True,
            **options,
        )
        train(optimizer, 4)
        ran.append((ours, [*optimizer.state.values()]))
    (ours, mine), (theirs, its) = ran
    for a, b in zip(ours, theirs, strict=True):  # a rounding that falls the other way now and then
        assert ((a - b).abs() > 2**-7 * b.abs() + 1e-3).float().mean() < 5e-3
    for one, other in zip(mine, its, strict=True):
        assert one.keys() == other.keys()
        assert all(one[n].dtype is other[n].dtype for n in one)
        assert all(one[n].stride() == other[n].stride() for n in one)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_small_changes_of_momentum_are_kept_on_average(backend):
    """Each step changes it by less than half its spacing: to nearest nothing would ever change."""
    w = torch.nn.Parameter(torch.zeros(200, 200))
    optimizer = Muon([w], momentum=0.999, state_dtype="bfloat16", backend=backend, ns_steps=0)
    w.grad = torch.ones(200, 200)
    optimizer.step()
    optimizer.state[w]["momentum_buffer"].fill_(0.5)
    for _ in range(20):
        optimizer.step()
    expected = 1 - 0.5 * 0.999**20
    # 20 roundings of variance at most 2^-18 in each of 40000 elements: 5 standard errors.
    found = optimizer.state[w]["momentum_buffer"].double().mean()
    assert abs(found - expected) < 5 * (20 * 2**-18 / 40000) ** 0.5


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_weight_and_its_momentum_are_rounded_by_other_bits(backend):
    """Both come to lie in the middle between two numbers: who goes up must not be the same."""
    w = torch.nn.Parameter(torch.full((200, 200), -1.0, dtype=torch.bfloat16))
    options = {"state_dtype": "bfloat16", "stochastic_rounding": True, "backend": backend}
    options |= {"momentum": 0.0, "nesterov": False, "ns_steps": 0, "ns_dtype": "float32"}
    optimizer = Muon([w], lr=200 * 2**-8, weight_decay=0.0, clip_value=1 + 2**-8, **options)
    w.grad = torch.full((200, 200), 2.0, dtype=torch.bfloat16)
    optimizer.step()
    up = [w.detach() < -1, optimizer.state[w]["momentum_buffer"] > 1]
    shares = torch.stack([one.flatten().double() for one in up])
    assert (shares.mean(1) - 0.5).abs().max() < 5 * 0.5 / 200
    assert abs(torch.corrcoef(shares)[0, 1]) < 5 / 200


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("state_dtype", LEAN)
def test_a_resumed_run_has_the_same_bits(state_dtype, backend):
    options = {"state_dtype": state_dtype, "backend": backend, "average": 0.9, "lr": 0.01}
    ours = weights()
    optimizer = Muon(ours, **options)
    for seed in range(3):
        step(ours, optimizer, seed)
    saved = through_a_file(optimizer.state_dict())
    loaded = copy.deepcopy(ours)
    other = Muon(loaded, **options)
    other.load_state_dict(saved)
    for seed in range(3, 6):
        step(ours, optimizer, seed)
        step(loaded, other, seed)
    for a, b in zip(ours, loaded, strict=True):
        assert torch.equal(a, b)
        equal(optimizer.state[a], other.state[b])


@pytest.mark.parametrize("state_dtype", LEAN)
def test_from_full_state_to_lean_and_back(state_dtype):
    """Of torch's optimizer to the nearest, and from lean to full exactly."""
    ours = parameters((64, 100), (100, 64))
    theirs = torch.optim.Muon(copy.deepcopy(ours), lr=0.01)
    train(theirs, 3)
    lean = Muon(ours, lr=0.01, state_dtype=state_dtype)
    lean.load_state_dict(theirs.state_dict())
    put_in_order(ours, lean)
    full = Muon(copy.deepcopy(ours), lr=0.01)
    full.load_state_dict(lean.state_dict())
    put_in_order(full.param_groups[0]["params"], full)
    for whole, there, back in zip(*(o.state.values() for o in (theirs, lean, full)), strict=True):
        b = whole["momentum_buffer"]
        share = 2**-8 if state_dtype == "bfloat16" else 2**-4
        assert set(back) == {"momentum_buffer", "step"}
        assert back["momentum_buffer"].dtype is torch.float32
        torch.testing.assert_close(
            back["momentum_buffer"], b, rtol=share, atol=1e-4 * float(b.abs().max())
        )
        assert not torch.equal(back["momentum_buffer"], b)
        if state_dtype == "int8":
            held = numbers(there, "momentum_buffer", "signed")
            assert (held == flat(back["momentum_buffer"]).double().numpy()).all()
        else:
            assert torch.equal(back["momentum_buffer"], there["momentum_buffer"].float())


@pytest.mark.parametrize("rule", [SOAP, Adafactor])
def test_rules_without_moments_refuse_it(rule):
    """SOAP's would be rounded before they are rotated, into directions of hardly any gradient."""
    with pytest.raises(ArgumentError, match="state_dtype='int8' has nothing to hold"):
        rule(parameters((2, 2)), state_dtype="int8")


def test_a_moment_that_a_function_of_matrices_writes():
    def take(g, m):
        return g, m

    def turn(u, m):
        return u, m

    parts = elementwise(take, "u", "m"), matrices(turn, "u", "m"), DESCEND
    with pytest.raises(EquationError) as caught:
        matrix_rule("Turned", "", *parts, kept={"m": "m"}, moments={"m": "signed"})
    assert str(caught.value) == (
        "matrix rule Turned cannot have 'm' as a moment\n"
        "  expected: a state that elementwise equations alone write"
    )
