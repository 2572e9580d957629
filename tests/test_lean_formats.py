"""Rounding at random and the 8-bit map, through whole kernels, against tables in float64.

Statistical bounds are five standard errors: a correct rounding fails one of them in two million.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lean_support import BLOCK, OCTAVES, hold, holder, neighbours, numbers, smallest_scale, table

import ravine
from ravine.engine import lean
from ravine.optim import lean_state

BACKENDS = ["cpu", "reference"]
DRAWS = 8192


@pytest.fixture
def _any_size(monkeypatch):
    """Hold small tensors as codes too."""
    monkeypatch.setattr(lean_state, "SMALLEST", 0)


def is_mean(draws, x, low, high):
    """Whether draws of low or high have the mean x, within five standard errors."""
    chance = (x - low) / (high - low)
    error = (high - low) * np.sqrt(max(chance * (1 - chance), 1 / DRAWS) / DRAWS)
    return abs(draws.mean() - x) <= 5 * error


# --- bfloat16 ------------------------------------------------------------------------------------

INEXACT = [1.001, 1.0039, -3.1415927, 0.1, 7.7e-39, -1.3e-41, 1e-45, 2.9e38, -65504.3, 1 + 2.0**-23]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("x", INEXACT)
def test_bfloat16_is_a_neighbour_and_right_on_average(x, backend):
    x = float(np.float32(x))
    drawn = hold(torch.full((DRAWS,), x), "bfloat16", backend=backend)["m"].double().numpy()
    bits = np.float32(x).view(np.uint32)
    low = (bits & 0xFFFF0000).view(np.float32).astype(np.float64)
    high = ((bits & 0xFFFF0000) + 0x10000).view(np.float32).astype(np.float64)
    assert set(drawn) <= {low, high}
    assert is_mean(np.abs(drawn), abs(x), abs(low), abs(high))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_bfloat16_can_hold_is_not_changed(backend):
    every = torch.arange(65536).to(torch.int32).to(torch.uint16).view(torch.bfloat16)
    held = hold(every.float(), "bfloat16", backend=backend)["m"]
    nan = every.isnan()
    assert torch.equal(held[~nan].view(torch.int16), every[~nan].view(torch.int16))
    assert held[nan].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_of_any_bits_stays_nan(backend):
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    held = hold(bits.view(torch.float32).repeat(100), "bfloat16", backend=backend)["m"]
    assert held.isnan().all()


# --- random bits ---------------------------------------------------------------------------------


def uniforms(place, step=1, seed=0, elements=1 << 16, count=20):
    streams = np.array([12345 + seed], dtype=np.uint64)
    key = lean.step_keys(streams, np.array([float(step)]))[0]
    return lean.random_bits(elements, key, place, count).numpy() / 2.0**count - 0.5


def test_random_bits_are_uniform_and_uncorrelated():
    streams = {
        "first": uniforms(0), "second": uniforms(1), "third": uniforms(2), "fourth": uniforms(3),
        "next step": uniforms(0, step=2), "other seed": uniforms(0, seed=1),
        "next element": np.roll(uniforms(0), 1), "next row": np.roll(uniforms(0), 64),
    }  # fmt: skip
    n = 1 << 16
    for name, drawn in streams.items():
        counts = np.histogram(drawn, bins=64, range=(-0.5, 0.5))[0]
        chi2 = ((counts - n / 64) ** 2 / (n / 64)).sum()
        assert abs(chi2 - 63) < 5 * np.sqrt(2 * 63), name
    names = list(streams)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            correlation = 12 * (streams[one] * streams[other]).mean()
            assert abs(correlation) < 5 / np.sqrt(n), (one, other)


def test_the_same_bits_for_the_same_element_in_a_longer_tensor():
    assert np.array_equal(uniforms(1, elements=70_000)[:500], uniforms(1, elements=500))


# --- the 8-bit map -------------------------------------------------------------------------------


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 255, 256, 257, 32768, 32769, 65536 + 255])
def test_codes_are_neighbours_under_the_scale_of_their_block(size, backend):
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, generator=generator) * 10.0 ** torch.empty(size).uniform_(-12, 2)
    state = hold(x, "int8", backend=backend)
    exact = np.abs(x.double().numpy())
    for name, kind in (("m", "signed"), ("v", "nonnegative")):
        held = numbers(state, name, kind)
        for block in range(-(-size // BLOCK)):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            scale = smallest_scale(exact[part].max(), kind)
            assert state[f"{name}_scales"][block] == scale
            low, high = neighbours(exact[part], scale, kind)
            magnitude = np.abs(held[part])
            assert ((magnitude == low) | (magnitude == high)).all()
            assert (np.abs(magnitude - exact[part]) <= exact[part] / 8 + scale / 4).all()
        assert state[f"{name}_scales"].shape == (-(-size // BLOCK),)
    signed = numbers(state, "m", "signed")
    assert (np.sign(signed) * np.sign(x.numpy()) >= 0).all()
    assert (numbers(state, "v", "nonnegative")[exact > 0] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
@pytest.mark.parametrize("x", [0.9, 0.3, 0.0311, 1.7e-3, 2.2e-5, 6.1e-6])
def test_codes_are_right_on_average(x, kind, backend):
    x = float(np.float32(x))
    values = torch.full((DRAWS // 255 * 256,), x)
    values[::BLOCK] = 1.0  # the block's largest
    state = hold(values, "int8", backend=backend)
    drawn = np.abs(numbers(state, "m" if kind == "signed" else "v", kind))
    drawn = drawn[np.arange(len(drawn)) % BLOCK != 0]
    low, high = neighbours(np.array([x]), smallest_scale(1.0, kind), kind)
    assert set(drawn) <= {low[0], high[0]}
    assert is_mean(drawn, x, low[0], high[0])


@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_code_stays_itself(kind, backend):
    scale, count = 2.0**-20, 8 * OCTAVES[kind]
    codes = torch.arange(4096) % count
    codes[codes == count - 1] = count - 2  # the last one is there for the largest, rounded up
    values = torch.tensor(table(kind)[codes.numpy()] * scale, dtype=torch.float32)
    state = hold(values, "int8", backend=backend, steps=3)
    name = "m" if kind == "signed" else "v"
    assert (state[f"{name}_scales"] == scale).all()
    assert torch.equal(state[f"{name}_codes"], codes.to(torch.uint8))


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize("size", [1, 255, 257, 4097, 100_003])
@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
def test_both_executors_hold_the_same_bits(size, state_dtype):
    x = torch.randn(size) * 10.0 ** torch.empty(size).uniform_(-20, 15)
    one, other = (hold(x, state_dtype, backend=b, steps=2) for b in BACKENDS)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_its_block_only(bad, backend):
    x = torch.ones(8192)
    x[BLOCK + 7] = float(bad)
    state = hold(x, "int8", backend=backend)
    for name, kind in (("m", "signed"), ("v", "nonnegative")):
        held = numbers(state, name, kind)
        assert np.isnan(held[BLOCK : 2 * BLOCK]).all()
        others = np.delete(held, np.s_[BLOCK : 2 * BLOCK])
        assert (np.abs(others - 1) <= 0.126).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scale_is_kept_while_it_serves(backend):
    w = torch.nn.Parameter(torch.zeros(4096))
    optimizer = holder([w], state_dtype="int8", backend=backend)
    scales = []
    for largest in (1.0, 0.3, 0.26, 0.2, 1.0):
        w.grad = torch.full((4096,), largest)
        optimizer.step()
        scales.append(optimizer.state[w]["m_scales"][3].item())
    full = smallest_scale(1.0, "signed")
    assert scales == [full, full, full, smallest_scale(0.2, "signed"), full]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_may_be_called_key(backend):
    """As the random bits' key once was among a kernel's addresses: it was written over this state's."""

    @ravine.update_rule(moments={"m": "signed"})
    def rule(w, g, m, key, *, lr=0.0):
        return w - lr * g, g, key + 1

    w = torch.nn.Parameter(torch.zeros(5000))
    optimizer = rule([w], state_dtype="int8", backend=backend)
    for _ in range(2):
        w.grad = torch.ones(5000)
        optimizer.step()
    assert (optimizer.state[w]["key"] == 2).all()
