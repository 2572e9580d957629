"""Dropout: its masks, its place in autograd, its state, and its statistics."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ravine.engine.philox import philox4x32, stream_seed, words
from ravine.errors import ArgumentError, ArgumentTypeError, BackendWarning
from ravine.regularize import Dropout, checkpoint_contexts
from ravine.regularize.dropout_mask import (
    CHUNK,
    GROUP,
    RUN,
    Chance,
    drop_compiled,
    drop_reference,
    keep_mask,
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ONES = 0xFFFFFFFF


# --- the generator -------------------------------------------------------------------------------

# Random123's kat_vectors, "philox4x32 10".
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_vectors(counter, key, expected):
    assert philox4x32(counter, key) == expected
    tensors = philox4x32(
        tuple(torch.tensor([word]) for word in counter), tuple(torch.tensor([k]) for k in key)
    )
    assert tuple(int(word) for word in tensors) == expected


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_compiled_philox_gives_the_published_vectors(counter, key, expected):
    import numba

    from ravine.engine.philox_cpu import at_least_unsigned
    from ravine.engine.philox_cpu import philox4x32 as compiled

    signed = [word - 2**32 if word >= 2**31 else word for word in (*counter, *key)]

    @numba.njit
    def run(c0, c1, c2, c3, k0, k1):
        return compiled(c0, c1, c2, c3, k0, k1)

    @numba.njit
    def compare(a, b):
        return at_least_unsigned(a, b)

    assert tuple(word & ONES for word in run(*signed)) == expected
    assert compare(-1, 1)
    assert not compare(1, -1)
    assert compare(7, 7)


def test_stream_seeds_differ_and_are_in_bounds():
    seeds = {stream_seed(seed, index) for seed in range(50) for index in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- the mask ------------------------------------------------------------------------------------


def plain_mask(size: int, seed: int, call: int, threshold: int) -> list[bool]:
    """The definition, element by element in Python numbers."""
    kept = []
    for i in range(size):
        group, j = divmod(i, GROUP)
        block = group * RUN + j % RUN
        random = philox4x32((*words(block), *words(call)), words(seed))
        kept.append(random[j // RUN] >= threshold)
    return kept


@pytest.mark.parametrize(
    "size", [0, 1, RUN - 1, RUN + 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 70]
)
def test_the_mask_is_as_defined(size):
    seed, call, threshold = 2**62 + 12345, 2**33 + 7, 0xB0000001
    expected = plain_mask(size, seed, call, threshold)
    stream = torch.tensor([seed, call])
    assert keep_mask(torch.Size([size]), stream, threshold).tolist() == expected
    compiled = drop_compiled(torch.ones(size), seed, call, Chance(threshold, 1.0))
    assert compiled.tolist() == [float(kept) for kept in expected]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 257, 1000, CHUNK - 1, CHUNK, 3 * CHUNK + 129])
@pytest.mark.parametrize("p", [1e-12, 0.1, 0.5, 0.999])
def test_compiled_and_reference_agree_bit_by_bit(dtype, size, p):
    x = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    chance = Chance.of(p)
    a = drop_compiled(x, 5, 9, chance)
    b = drop_reference(x, torch.tensor([5, 9]), chance)
    assert a.dtype == b.dtype == dtype
    assert torch.equal(a, b)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_mask_does_not_depend_on_the_threads(threads):
    x = torch.ones(5 * CHUNK + 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        result = drop_compiled(x, 1, 2, Chance.of(0.3))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(result, drop_reference(x, torch.tensor([1, 2]), Chance.of(0.3)))


def test_the_mask_does_not_depend_on_the_memory_order():
    x = torch.randn(3, 5, 7, 11)
    rows = Dropout(0.4, seed=1)(x)
    for other in (
        x.to(memory_format=torch.channels_last),
        x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        torch.randn(3, 5, 7, 22)[..., ::2].copy_(x),
    ):
        result = Dropout(0.4, seed=1)(other)
        assert torch.equal(result, rows)
        assert result.stride() == torch.empty_like(other).stride()
    broadcast = torch.ones(1, 1).expand(6, 9)
    result = Dropout(0.5, seed=2)(broadcast)
    assert torch.equal(result, Dropout(0.5, seed=2)(broadcast.contiguous()))


def test_the_chance_is_exact_to_32_bits():
    for p in (1e-3, 0.1, 1 / 3, 0.5, 0.9, 1 - 1e-9):
        chance = Chance.of(p)
        assert abs(chance.threshold / 2**32 - p) <= 2**-33
        assert chance.scale * (1 - chance.threshold / 2**32) == pytest.approx(1, rel=1e-15)
    assert Chance.of(math.nextafter(1, 0)).threshold == 2**32 - 1
    assert Chance.of(1e-12) == Chance(0, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(dtype):
    x = torch.randn(1000).to(dtype)
    kept = Dropout(0.1, seed=0)(x)
    exact = x.double() / 0.9
    assert torch.equal(kept[kept != 0], exact.float().to(dtype)[kept != 0])


# --- the layer -----------------------------------------------------------------------------------


def test_eval_and_zero_return_the_input_and_draw_nothing():
    x = torch.randn(5)
    layer = Dropout(0.0, seed=0)
    assert layer(x) is x
    layer.p = 0.5
    assert layer.eval()(x) is x
    layer.train().p = 1.0
    layer(x)
    assert layer.stream.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_gives_exact_zeros_and_a_gradient_of_zeros(dtype):  # torch issue 107942
    x = torch.tensor([1.0, math.nan, math.inf, -math.inf, 0.0], dtype=dtype, requires_grad=True)
    y = Dropout(1.0)(x)
    y.backward(torch.full_like(y, math.inf))
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(x.grad, torch.zeros_like(x))
    compiled = torch.compile(Dropout(1.0), backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(compiled, torch.zeros_like(y))


def test_what_is_dropped_leaves_no_trace():
    x = torch.full((100,), math.nan)
    y = Dropout(0.5, seed=0)(x)
    mask = Dropout(0.5, seed=0)(torch.ones(100))
    assert torch.equal(y.isnan(), mask != 0)
    assert torch.equal(y[mask == 0], mask[mask == 0])


def test_every_call_draws_another_mask_and_counts():
    layer = Dropout(0.5, seed=0)
    x = torch.ones(1000)
    masks = [layer(x) for _ in range(3)]
    assert layer.stream.tolist() == [0, 3]
    assert not any(torch.equal(masks[a], masks[b]) for a in range(3) for b in range(a))
    layer.reseed(0)
    assert torch.equal(layer(x), masks[0])


def test_a_resumed_run_draws_the_same_masks():
    layer, x = Dropout(0.5, seed=3), torch.ones(500)
    layer(x)
    state = copy.deepcopy(layer.state_dict())
    expected = [layer(x) for _ in range(2)]
    resumed = Dropout(0.5)
    resumed.load_state_dict(state)
    assert all(torch.equal(resumed(x), mask) for mask in expected)


def test_a_state_of_torchs_layer_can_be_loaded():
    ours = nn.Sequential(nn.Linear(2, 2), Dropout(0.5, seed=4))
    result = ours.load_state_dict(nn.Sequential(nn.Linear(2, 2), nn.Dropout()).state_dict())
    assert not result.missing_keys
    assert ours[1].stream.tolist() == [4, 0]


def test_layers_without_a_seed_differ_and_follow_torchs():
    def layers():
        torch.manual_seed(11)
        return [Dropout().stream.tolist() for _ in range(2)]

    first = layers()
    assert first[0] != first[1]
    assert layers() == first


def test_torchs_generator_is_left_alone():
    state = torch.get_rng_state()
    Dropout(0.5, seed=0)(torch.ones(100))
    assert torch.equal(torch.get_rng_state(), state)


def test_empty_and_scalar_inputs():
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert Dropout(0.5, seed=0)(torch.tensor(1.0)).shape == ()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, math.inf])
def test_probabilities_out_of_bounds(p):
    with pytest.raises(ArgumentError, match=r"Dropout: p.*\n.*got:.*\n.*probability in \[0, 1\]"):
        Dropout(p)
    layer = Dropout(0.5)
    with pytest.raises(ArgumentError):
        layer.p = p
    assert layer.p == 0.5


def test_wrong_types_and_seeds():
    with pytest.raises(ArgumentTypeError, match="not a number"):
        Dropout("0.5")
    with pytest.raises(ArgumentError, match=r"2\^63"):
        Dropout(0.5, seed=2**63)
    with pytest.raises(ArgumentError, match="seed"):
        Dropout(0.5, seed=-1)
    with pytest.raises(ArgumentTypeError, match=r"(?s)real float.*torch.int64"):
        Dropout(0.5)(torch.ones(3, dtype=torch.int64))


# --- derivatives and transforms ------------------------------------------------------------------


def fixed(seed: int = 3):
    """The layer as a function that always draws its first mask."""
    layer = Dropout(0.3, seed=seed)

    def function(x):
        layer.reseed(seed)
        return layer(x)

    return function


def test_first_and_second_derivative():
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fixed(), x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: fixed()(t * t * t), x)


def test_the_gradient_goes_through_the_same_mask():
    x = torch.randn(70_001, requires_grad=True)
    layer = Dropout(0.3, seed=3)
    y = layer(x)
    layer(x)  # a later call does not change the way back of the first
    y.sum().backward()  # its gradient is a broadcast one
    assert torch.equal(x.grad, fixed()(torch.ones_like(x)))


def test_hessian_vector_product():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    mask = fixed()(torch.ones_like(x)).detach()
    (g,) = torch.autograd.grad((fixed()(x) ** 3).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    torch.testing.assert_close(h, 6 * mask**3 * x.detach())


def test_functorch_sees_the_same_mask_and_counts():
    x = torch.randn(6, dtype=torch.float64)
    layer = Dropout(0.3, seed=3)
    mask = fixed()(torch.ones_like(x))
    gradient = torch.func.grad(lambda t: (layer(t) ** 2).sum())(x)
    torch.testing.assert_close(gradient, 2 * mask**2 * x)
    assert layer.stream.tolist() == [3, 1]
    layer.reseed(3)
    _, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, mask)
    layer.reseed(3)
    assert torch.equal(torch.func.vmap(layer)(torch.ones(2, 6).double()), mask.expand(2, 6))


def test_stacked_models_draw_masks_of_their_own():
    model = nn.Sequential(Dropout(0.5, seed=0))
    streams = torch.tensor([[1, 0], [2, 5]])

    def run(stream, x):
        return torch.func.functional_call(model, {"0.stream": stream}, (x,))

    results = torch.func.vmap(run, in_dims=(0, None))(streams, torch.ones(40))
    for stream, result in zip(torch.tensor([[1, 0], [2, 5]]), results, strict=True):
        assert torch.equal(result, drop_reference(torch.ones(40), stream, Chance.of(0.5)))
    assert streams.tolist() == [[1, 1], [2, 6]]


def test_compiled_by_torch_in_one_graph():
    torch._dynamo.reset()
    layer, eager = Dropout(0.3, seed=3), Dropout(0.3, seed=3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 300, requires_grad=True)
    for _ in range(10):  # a counter that were a Python number would compile anew each time
        a, b = compiled(x), eager(x)
        assert torch.equal(a, b)
        (g,) = torch.autograd.grad(a.sum(), x)
        (h,) = torch.autograd.grad(b.sum(), x)
        assert torch.equal(g, h)
    assert layer.stream.tolist() == [3, 10]


# --- recomputation -------------------------------------------------------------------------------


def test_checkpoint_draws_the_first_masks_again():
    model = nn.Sequential(nn.Linear(3, 30), Dropout(0.5, seed=0), nn.Tanh(), nn.Linear(30, 3))
    x = torch.randn(4, 3)
    expected = []
    for _ in range(2):
        model.zero_grad()
        model(x).sum().backward()
        expected.append(model[0].weight.grad.clone())
    model[1].reseed(0)
    outputs = [
        checkpoint(
            model, x, use_reentrant=False, context_fn=lambda: checkpoint_contexts(model)
        ).sum()
        for _ in range(2)
    ]
    for output, gradient in reversed(list(zip(outputs, expected, strict=True))):
        model.zero_grad()
        output.backward()
        assert torch.equal(model[0].weight.grad, gradient)
    assert model[1].stream.tolist() == [0, 2]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_without_contexts_is_refused(reentrant):
    model = nn.Sequential(Dropout(0.5), nn.Tanh())
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"(?s)run again.*checkpoint_contexts"):
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()


# --- statistics ----------------------------------------------------------------------------------

# Each figure below is approximately standard normal under the hypothesis of fair and independent
# masks. The seeds are fixed, so that the tests always give the same answer; for a fair generator the
# probability that a choice of seeds passes a bound of 5 is 5.7e-7 for each figure, and there are
# fewer than 100 of them: the error rate of the whole is under 1e-4.
BOUND = 5.0
SIZE = 1 << 18


def kept(p: float, seed: int, call: int = 0, size: int = SIZE) -> torch.Tensor:
    result = drop_compiled(torch.ones(size), seed, call, Chance(Chance.of(p).threshold, 1.0))
    return result.double()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_rate_of_drops(p, seed):
    drops = float((1 - kept(p, seed)).sum())
    assert abs(drops - SIZE * p) / math.sqrt(SIZE * p * (1 - p)) < BOUND


def correlation(a: torch.Tensor, b: torch.Tensor, p: float) -> float:
    """The sum of products, in standard deviations."""
    centred = (a - (1 - p)) * (b - (1 - p))
    return abs(float(centred.sum())) / (math.sqrt(len(a)) * p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_elements_are_independent(p):
    mask = kept(p, 7)
    for lag in (1, 2, 3, RUN - 1, RUN, RUN + 1, 2 * RUN, 3 * RUN, GROUP, CHUNK):
        assert correlation(mask[:-lag], mask[lag:], p) < BOUND, lag


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_calls_and_seeds_are_independent(p):
    mask = kept(p, 7)
    others = [kept(p, 7, call) for call in (1, 2, 2**32)]
    others += [kept(p, seed) for seed in (6, 8, 7 + 2**32, stream_seed(7, 0), stream_seed(7, 1))]
    for number, other in enumerate(others):
        assert correlation(mask, other, p) < BOUND, number


def test_the_number_of_drops_in_blocks_is_binomial():
    counts = kept(0.5, 1).view(-1, 64).sum(1)
    # Index of dispersion: sum (count - mean)^2 / variance is chi-square with one degree a block.
    blocks = len(counts)
    dispersion = float(((counts - 32) ** 2).sum()) / 16
    assert abs(dispersion - blocks) / math.sqrt(2 * blocks) < BOUND


def test_the_mean_is_kept():
    x = torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    difference = Dropout(0.3, seed=0)(x) - x
    assert abs(float(difference.mean())) / (float(difference.std()) / math.sqrt(SIZE)) < BOUND


# --- without Numba -------------------------------------------------------------------------------


def test_without_numba_the_numbers_are_the_same(monkeypatch):
    from ravine.engine import choice, cpu

    x = torch.randn(500, requires_grad=True)
    expected = fixed()(x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    monkeypatch.setattr(cpu, "unavailable", lambda: "Numba is not here")
    monkeypatch.setattr(choice, "_warned", set())
    with pytest.warns(BackendWarning, match="plain PyTorch"):
        result = fixed()(x)
    assert torch.equal(result, expected)
    assert torch.equal(torch.autograd.grad(result.sum(), x)[0], gradient)
