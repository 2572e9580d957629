"""Dice and Tversky losses of two classes on the GPU executor; run by test_gpu.py in a process of its own.

Under TRITON_INTERPRET=1 the tensors are on the CPU and taken for a GPU's.
"""

from __future__ import annotations

import pytest
import torch
from gpu_support import DEVICE
from torch.utils._python_dispatch import TorchDispatchMode

from ravine.engine import capture, gpu
from ravine.errors import ArgumentError
from ravine.losses import sample_pass, tversky
from ravine.losses.sample_pass import SamplePass

SHAPE = (3, 2, 750)  # a whole block of each sample and a part
TYPES = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2.0**-8 + 3e-6}
OPTIONS = {"alpha": 0.3, "beta": 0.7, "gamma": 1.3}


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    """Have masks served by the GPU executor; return the sizes of its launches."""
    if gpu.interpreted():
        monkeypatch.setattr(sample_pass, "executor", lambda name: gpu)
    found = []
    run = gpu.Launch.run

    def noted(self):
        found.append(self.elements)
        run(self)

    monkeypatch.setattr(gpu.Launch, "run", noted)
    return found


def masks(kind):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(kind)
    y = torch.rand(SHAPE, generator=generator) > 0.6
    return (x * 4).to(DEVICE), y.to(DEVICE)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("target", [torch.bool, torch.float32], ids=str)
def test_as_by_plain_operations_in_float64(kind, target, launches, monkeypatch):
    x, y = masks(kind)
    y = y.to(target)
    x.requires_grad_()
    weight = torch.tensor([1.0, 0.0, 2.0], device=DEVICE)
    found = tversky(x, y, **OPTIONS, weight=weight)
    (found * 3).backward()
    assert launches == [x.numel()] * (2 + y.is_floating_point())
    monkeypatch.setattr(SamplePass, "serves", lambda self, input: False)
    z = x.detach().double().requires_grad_()
    exact = tversky(z, y, **OPTIONS, weight=weight.double())
    (exact * 3).backward()
    torch.testing.assert_close(found, exact.to(found.dtype), rtol=min(TYPES[kind], 5e-7), atol=0)
    torch.testing.assert_close(x.grad.double(), z.grad, rtol=TYPES[kind], atol=0)


def test_one_sample_and_others_after_it(launches):
    x, y = masks(torch.float32)
    whole = tversky(x, y, reduction="none")
    first = tversky(x[:1], y[:1], reduction="none")
    torch.testing.assert_close(first, whole[:1], rtol=1e-6, atol=0)
    assert launches == [x.numel(), x[0].numel()]


def test_the_host_waits_for_nothing():
    x, y = masks(torch.float32)
    x.requires_grad_()
    tversky(x, y, check="off").backward()  # tables are made

    class Free(TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            assert name not in ("_local_scalar_dense", "nonzero", "item"), name
            return function(*args, **(kwargs or {}))

    with Free():
        tversky(x, y, check="off").backward()


def test_while_a_graph_is_captured_plain_operations_or_words(launches, monkeypatch):
    x, y = masks(torch.float32)
    monkeypatch.setattr(capture, "is_capturing", lambda device: True)
    monkeypatch.setattr(sample_pass, "is_capturing", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    with pytest.raises(ArgumentError, match="tversky: what it checks cannot be captured"):
        tversky(x, y)
    tversky(x, y, check="off")
    assert not launches  # whose tables come from memory of the host
