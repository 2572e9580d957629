"""Tensors beyond 2^31 elements, by arithmetic on offsets: no such memory is needed here."""

from __future__ import annotations

import ctypes

import pytest
import torch

import ravine.optim
from ravine.engine import cpu
from ravine.engine.cpu_pool import Kernel

SIZES = [7, 2**31 - 1, 0, 2**31, 2**33 + 5]


def chunks(launch):
    """Return the launch's chunks (tensor, offset, length), as the kernel finds them."""
    assert isinstance(launch._chunks, ctypes.Array)
    assert launch._chunks._type_ is ctypes.c_int64
    numbers = list(launch._chunks)[: 3 * launch._head[1]]
    return list(zip(*[iter(numbers)] * 3, strict=True))


def never_run(head):
    raise AssertionError("this launch is only looked at")


def launch_of(sizes):
    kernel = object.__new__(Kernel)
    kernel.serial = kernel.parallel = never_run
    return cpu.Launch(kernel, sizes, arrays=2, slots=1)


@pytest.mark.parametrize("selected", [range(5), [1, 4], [2], [0, 3]], ids=str)
def test_the_chunks_cover_every_element_once(selected):
    launch = launch_of([3, 0, 1, 2, 4])
    launch.resize(SIZES)
    launch.select(selected)
    assert launch.elements == sum(SIZES[k] for k in selected)
    reached = dict.fromkeys(selected, 0)
    for tensor, offset, length in chunks(launch):
        assert offset == reached[tensor]
        assert 0 < length <= cpu.LARGEST_CHUNK
        reached[tensor] += length
    assert reached == {k: SIZES[k] for k in selected}


@pytest.mark.parametrize("offset", [2**31 - 64, 2**31, 2**32 + 3, 2**40], ids=hex)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_kernel_reaches_elements_at_large_offsets(offset, dtype):
    """The kernel is told of a tensor that began ``offset`` elements before the memory it may touch."""
    w = torch.nn.Parameter(torch.ones(1000, dtype=dtype))
    optimizer = ravine.optim.SGD([w], lr=0.5)
    w.grad = torch.ones_like(w)
    optimizer.step()
    (bucket,) = optimizer._plan.buckets
    launch = bucket._last.launch
    before = offset * w.element_size()
    for variable, name in enumerate(bucket._specialised.variables):
        tensor = {"w": w, "g": w.grad}[name]
        launch.set_addresses(variable, [tensor.data_ptr() - before])
    assert chunks(launch) == [(0, 0, 1000)]
    launch._chunks[1], launch._chunks[2] = offset + 100, 800
    launch.run()
    expected = torch.full_like(w, 0.5)
    expected[100:900] = 0
    assert torch.equal(w.detach(), expected)
