"""Optimizers with lean state and with bfloat16 weights: memory, numbers, bounds, errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from lean_support import holder, numbers

import ravine
from ravine.errors import ArgumentError, EquationError
from ravine.optim import OPTIMIZERS, SGD, Adam, AdamW, GradientDescent, RMSprop, lean_state

LEAN = ["bfloat16", "int8"]


def parameters(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def train(optimizer, steps, seed=1):
    """Step with gradients of a noisy bowl; return the weights."""
    generator = torch.Generator().manual_seed(seed)
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for _ in range(steps):
        for w in weights:
            noise = torch.randn(w.shape, generator=generator)
            w.grad = (w.detach().float() + 0.3 * noise).to(w.dtype)
        optimizer.step()
    return [w.detach() for w in weights]


def state_bytes(optimizer):
    tensors = [t for s in optimizer.state.values() for k, t in s.items() if k != "step"]
    return sum(t.untyped_storage().nbytes() for t in tensors)


def test_the_memory_of_state():
    sizes = {}
    for state_dtype in ("float32", *LEAN):
        optimizer = AdamW(parameters((1000, 512)), state_dtype=state_dtype)
        train(optimizer, 1)
        sizes[state_dtype] = state_bytes(optimizer)
        assert f"state {sizes[state_dtype] / 1e6:.3g}MB" in repr(optimizer)
    assert sizes["float32"] == 8 * 512_000
    assert sizes["bfloat16"] == 4 * 512_000
    assert sizes["int8"] == 2 * 512_000 + 2 * 4 * 2000 <= 0.3 * sizes["float32"]


def test_small_weights_and_the_average_stay_in_full_and_it_is_said():
    optimizer = Adam(parameters((64, 64), (4095,), ()), state_dtype="int8", average=0.9)
    train(optimizer, 2)
    large, small, scalar = optimizer.state.values()
    assert {"exp_avg_codes", "exp_avg_scales", "exp_avg_sq_codes", "exp_avg_sq_scales"} <= set(
        large
    )
    assert large["exp_avg_codes"].dtype is torch.uint8
    assert large["average"].dtype is torch.float32
    for state in (small, scalar):
        assert {state[k].dtype for k in ("exp_avg", "exp_avg_sq")} == {torch.float32}
    assert "moments in int8" in optimizer.explain()
    assert "2 tensors, 4096 weights" in optimizer.explain()
    assert "state in full (complex, or below 4096 weights)" in optimizer.explain()


@pytest.mark.parametrize("state_dtype", LEAN)
def test_complex_and_empty_weights(state_dtype):
    weights = [
        torch.nn.Parameter(torch.zeros(0, 5)),
        torch.nn.Parameter(torch.ones(5000, dtype=torch.complex64)),
    ]
    optimizer = Adam(weights, state_dtype=state_dtype)
    for w in weights:
        w.grad = torch.ones_like(w)
    optimizer.step()
    assert optimizer.state[weights[1]]["exp_avg"].dtype is torch.complex64


RULES = [
    (AdamW, {"lr": 1e-2}),
    (Adam, {"lr": 1e-2, "amsgrad": True, "clip_norm": 1.0}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (RMSprop, {"lr": 1e-2, "momentum": 0.9}),
]


@pytest.mark.parametrize("state_dtype", LEAN)
@pytest.mark.parametrize(("rule", "options"), RULES)
def test_both_executors_agree(rule, options, state_dtype):
    """But for numbers a rounding error apart, which now and then fall on two sides of a bound."""
    ran = []
    for backend in ("cpu", "reference"):
        weights = parameters((100, 333), (7,), (), seed=3)
        weights.append(torch.nn.Parameter(parameters((80, 90))[0].detach().t()))
        optimizer = rule(weights, state_dtype=state_dtype, backend=backend, **options)
        ran.append((train(optimizer, 5), list(optimizer.state.values())))
    (ours, our_state), (theirs, their_state) = ran
    for a, b in zip(ours, theirs, strict=True):
        assert ((a - b).abs() > 1e-5).float().mean() < 2e-3
    for one, other in zip(our_state, their_state, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].stride() == other[name].stride()
            if one[name].dtype is torch.float32:
                torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)
            else:
                assert (one[name] != other[name]).float().mean() < 5e-3


WITH_MOMENTS = sorted(name for name, rule in OPTIMIZERS.items() if rule.rule.moments)


def test_the_rules_that_have_moments():
    assert set(OPTIMIZERS) - set(WITH_MOMENTS) <= {
        "ASGD",
        "GradientDescent",
        "Rprop",
        "ScheduleFreeSGD",
        "Adafactor",
        "SOAP",
    }


@pytest.mark.parametrize("state_dtype", LEAN)
@pytest.mark.parametrize("name", WITH_MOMENTS)
def test_every_rule_goes_where_it_goes_with_full_state(name, state_dtype):
    """Also says which states are never negative: one that is would be NaN."""
    options = {"lr": 1.0 if name == "Prodigy" else 0.01}
    options |= {"momentum": 0.9} if name in ("SGD", "RMSprop", "Shampoo") else {}
    (start,), (full,), (lean,) = (parameters((90, 70)) for _ in range(3))
    train(OPTIMIZERS[name]([full], **options), 25)
    optimizer = OPTIMIZERS[name]([lean], state_dtype=state_dtype, **options)
    train(optimizer, 25)
    held = optimizer.state[lean].values()
    assert {torch.uint8 if state_dtype == "int8" else torch.bfloat16} <= {t.dtype for t in held}
    moved = (full.detach() - start.detach()).norm()
    assert (lean.detach() - full.detach()).norm() < 0.2 * moved


@pytest.mark.parametrize("state_dtype", LEAN)
def test_any_number_of_threads_gives_the_same_bits(state_dtype):
    count, ran = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            ran.append(train(AdamW(parameters((300, 401)), state_dtype=state_dtype), 3)[0])
    finally:
        torch.set_num_threads(count)
    assert torch.equal(ran[0], ran[1])
    assert torch.equal(ran[0], ran[2])


_SCRIPT = """
import torch, ravine
w = torch.nn.Parameter(torch.linspace(-1, 1, 50_000).to(torch.bfloat16))
o = ravine.optim.AdamW([w], lr=1e-3, state_dtype="int8", stochastic_rounding=True)
for _ in range(5):
    w.grad = w.detach().sin()
    o.step()
print(w.detach().view(torch.int16).long().mul(torch.arange(50_000)).sum().item())
"""


@pytest.mark.slow
def test_two_processes_round_alike():
    run = [sys.executable, "-c", _SCRIPT]
    printed = {subprocess.run(run, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(printed) == 1


def test_seed_and_place_decide_the_bits():
    def held(seed, place):
        weights = [torch.nn.Parameter(torch.zeros(8192)) for _ in range(2)]
        optimizer = holder(weights, state_dtype="bfloat16", rounding_seed=seed)
        for w in weights:
            w.grad = torch.full((8192,), 1.003)
        optimizer.step()
        return optimizer.state[weights[place]]["m"]

    assert torch.equal(held(0, 0), held(0, 0))
    assert not torch.equal(held(0, 0), held(1, 0))
    assert not torch.equal(held(0, 0), held(0, 1))


# --- what rounding at random is for ----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_steps_below_the_spacing_of_bfloat16_are_not_lost(backend):
    steps, size, lr = 50, 20_000, 1e-5  # the spacing below 1 is 2^-8: no step is 0.003 of that
    moved = {}
    for rounding in (False, True):
        w = torch.nn.Parameter(torch.ones(size, dtype=torch.bfloat16))
        options = {"backend": backend, "stochastic_rounding": rounding}
        optimizer = ravine.optim.GradientDescent([w], lr=lr, **options)
        for _ in range(steps):
            w.grad = torch.ones_like(w)
            optimizer.step()
        moved[rounding] = 1 - w.detach().double()
    assert (moved[False] == 0).all()
    error = np.sqrt(steps * lr * 2**-8 / size)  # each step moves by 2^-8 with a chance of lr 2^8
    assert abs(moved[True].mean().item() - steps * lr) < 5 * error
    assert (moved[True] * 2**8 == (moved[True] * 2**8).round()).all()


@pytest.mark.parametrize("state_dtype", LEAN)
def test_a_slow_mean_square_follows_its_gradients(state_dtype):
    """By 0.1% a step, less than any spacing: a nearest rounding would stay where it is."""
    w = torch.nn.Parameter(torch.zeros(40_000))
    optimizer = Adam([w], lr=0.0, state_dtype=state_dtype)
    exact = 0.0
    for step in range(150):
        g = 1.0 if step < 10 else 1.5
        w.grad = torch.full_like(w, g)
        optimizer.step()
        exact = 0.999 * exact + 0.001 * g * g
    state = optimizer.state[w]
    if state_dtype == "int8":
        v = numbers(state, "exp_avg_sq", "nonnegative")
    else:
        v = state["exp_avg_sq"].double().numpy()
    # The weights' random bits are independent: 40,000 of them tell the mean to 0.5% of the spread.
    assert v.std() < 0.2 * exact
    assert abs(v.mean() - exact) < 5 * v.std() / np.sqrt(len(v))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_step_explodes_beside_a_block_s_large_gradients(backend):
    """Where all of a block but one is 1e-12 of that one, v is at its smallest code, not 0."""
    w = torch.nn.Parameter(torch.zeros(8192))
    optimizer = Adam([w], lr=1.0, eps=1e-30, state_dtype="int8", backend=backend)
    generator = torch.Generator().manual_seed(5)
    largest = 0.0
    for _ in range(60):
        g = torch.randn(8192, generator=generator) * 10.0 ** torch.randint(-12, 1, (8192,))
        w.grad = g
        before = w.detach().clone()
        optimizer.step()
        largest = max(largest, (w.detach() - before).abs().max().item())
    assert largest < 15  # Adam's own bound is (1 - beta1) / sqrt(1 - beta2) = 3.2, and rounding


def test_a_gradient_of_zero_leaves_the_moments_at_zero():
    w = torch.nn.Parameter(torch.ones(8192))
    optimizer = Adam([w], state_dtype="int8")
    w.grad = torch.zeros(8192)
    w.grad[::2] = 3.0
    optimizer.step()
    assert (w.detach()[1::2] == 1).all()
    assert (optimizer.state[w]["exp_avg_sq_codes"][1::2] == 0).all()


# --- errors ----------------------------------------------------------------------------------------


def test_errors():
    (w,) = parameters((10,))
    with pytest.raises(ArgumentError, match="state_dtype has a value") as raised:
        Adam([w], state_dtype="float16")
    assert "'float32', 'bfloat16' or 'int8'" in str(raised.value)
    with pytest.raises(ArgumentError, match="has nothing to hold"):
        GradientDescent([w], lr=0.1, state_dtype="int8")
    with pytest.raises(ArgumentError, match="does not stand rounding"):
        RMSprop([w], centered=True, state_dtype="bfloat16")
    with pytest.raises(ArgumentError, match="rounding_seed has a value"):
        Adam([w], rounding_seed=-1)
    half = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    half.grad = torch.ones_like(half)
    with pytest.raises(ArgumentError, match="stochastic_rounding has no float16"):
        SGD([half], lr=0.1, stochastic_rounding=True).step()


def test_errors_of_rules():
    def step(w, g, m, *, lr):
        return w - lr * m, g

    with pytest.raises(EquationError, match="a moment of an unknown kind"):
        ravine.update_rule(moments={"m": "positive"})(step)
    with pytest.raises(EquationError, match="has no state n"):
        ravine.update_rule(moments={"n": "signed"})(step)


def test_an_option_changed_in_a_group_acts_at_the_next_step():
    optimizer = Adam(parameters((8192,)))
    train(optimizer, 2)
    optimizer.param_groups[0]["state_dtype"] = "int8"
    train(optimizer, 1)
    (state,) = optimizer.state.values()
    assert "exp_avg" not in state
    assert lean_state.flat(state["exp_avg_codes"]).any()
