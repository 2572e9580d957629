"""intrinsics against torch's conversions, NumPy's bits and a count of threads."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest
import torch
from numba import cfunc, njit

from ravine.engine.intrinsics import (
    address_to_array,
    atomic_add,
    bfloat16_to_float32,
    bits_to_float32,
    bits_to_float64,
    float16_to_float32,
    float32_to_bfloat16,
    float32_to_bits,
    float32_to_float16,
    float64_to_bits,
)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_torchs(kind: torch.dtype) -> None:
    widen = bfloat16_to_float32 if kind is torch.bfloat16 else float16_to_float32
    narrow = float32_to_bfloat16 if kind is torch.bfloat16 else float32_to_float16

    @njit
    def convert(stored, wide, back):
        for i in range(wide.size):
            wide[i] = widen(stored[i])
            back[i] = narrow(wide[i])

    @njit
    def narrow_all(wide, stored):
        for i in range(wide.size):
            stored[i] = narrow(wide[i])

    every = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    wide, back = np.empty(65536, np.float32), np.empty(65536, np.uint16)
    convert(every.numpy().view(np.uint16), wide, back)
    expected = every.view(kind).float()
    torch.testing.assert_close(torch.from_numpy(wide), expected, rtol=0, atol=0, equal_nan=True)
    number = ~expected.isnan().numpy()
    np.testing.assert_array_equal(back[number], every.numpy().view(np.uint16)[number])
    assert torch.from_numpy(back[~number].view(np.int16)).view(kind).isnan().all()

    random = np.random.default_rng(3).integers(0, 2**32, 300_000, dtype=np.uint64)
    # Every second one is a tie, or next to a tie.
    random[::2] = (random[::2] & ~np.uint64(0x1FFF)) | np.uint64(0x1000 if narrow is not
                   float32_to_bfloat16 else 0x8000)  # fmt: skip
    x = random.astype(np.uint32).view(np.float32)
    stored = np.empty(len(x), np.uint16)
    narrow_all(x, stored)
    got, expected = torch.from_numpy(stored.view(np.int16)).view(kind), torch.from_numpy(x).to(kind)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_bits() -> None:
    @njit
    def both(x, y):
        i, j = float32_to_bits(x), float64_to_bits(y)
        return i, j, bits_to_float32(i + 1), bits_to_float64(j + 1)

    i, j, x, y = both(np.float32(1.5), -2.5)
    assert i == np.float32(1.5).view(np.int32)
    assert j == np.float64(-2.5).view(np.int64)
    assert (x, y) == (np.nextafter(np.float32(1.5), np.float32(2)), np.nextafter(-2.5, -3.0))


def test_a_wrong_float_type_is_refused() -> None:
    @njit
    def wrong(x):
        return float32_to_bfloat16(x)

    with pytest.raises(Exception, match="float32_to_bfloat16"):
        wrong(1.0)


def test_atomic_add_returns_the_old_value_and_loses_none() -> None:
    @cfunc("int64(int64, int64)")
    def take(address, count):
        total = 0
        for _ in range(count):
            total += atomic_add(address, 1)
        return total

    counter = np.zeros(1, np.int64)
    totals: list[int] = []
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(take.address)
    threads = [
        threading.Thread(target=lambda: totals.append(call(counter.ctypes.data, 200_000)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 600_000
    assert sum(totals) == 600_000 * 599_999 // 2


def test_address_to_array() -> None:
    @njit
    def double(address, length):
        x = address_to_array(address, length, np.float64)
        for i in range(length):
            x[i] *= 2

    x = torch.arange(4, dtype=torch.float64)
    double(x.data_ptr(), 3)
    assert x.tolist() == [0, 2, 4, 3]
