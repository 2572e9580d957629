"""The masks of dropout: the generator's published numbers, and each mask as it is defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dropout_cases import DTYPES

from ravine.engine import kernel_cache
from ravine.engine.cpu_pool import Kernel
from ravine.engine.philox import philox4x32, stream_seed, words
from ravine.regularize import Dropout
from ravine.regularize.dropout_mask import (
    CHUNK,
    GROUP,
    RUN,
    Chance,
    drop_compiled,
    drop_reference,
    keep_mask,
)

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


PHILOX = """
from ravine.engine.philox_cpu import at_least_unsigned, philox4x32

number = float32


def random(head_address):
    w = address_to_array(head_address, 10, int32)
    w[6], w[7], w[8], w[9] = philox4x32(w[0], w[1], w[2], w[3], w[4], w[5])


def compare(head_address):
    w = address_to_array(head_address, 3, int32)
    w[2] = at_least_unsigned(w[0], w[1])
"""


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_compiled_philox_gives_the_published_vectors(counter, key, expected):
    numbers = np.array([*counter, *key, 0, 0, 0, 0], np.uint32)
    kernel = Kernel(*kernel_cache.function(PHILOX, "random"))
    kernel.serial(numbers.ctypes.data)
    assert tuple(numbers[6:]) == expected


def test_compiled_words_are_compared_as_unsigned():
    kernel = Kernel(*kernel_cache.function(PHILOX, "compare"))
    for a, b in ((ONES, 1), (1, ONES), (7, 7)):
        numbers = np.array([a, b, 9], np.uint32)
        kernel.serial(numbers.ctypes.data)
        assert numbers[2] == (a >= b)


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
