"""Triplet and contrastive losses by the kernels for a GPU; run by test_gpu.py in a process of its own.

Under TRITON_INTERPRET=1 the tensors are on the CPU and taken for a GPU's.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from gpu_support import DEVICE

from ravine.engine import gpu
from ravine.losses import contrastive, executors, triplet

pytest.importorskip("triton")
from ravine.losses.kernels import distances_gpu

KINDS = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8 + 1e-6, torch.float16: 2.0**-11 + 1e-6}
SHAPES = [(5, 3), (3, 1300)]  # several rows a tile, several tiles a row


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    if gpu.interpreted():
        monkeypatch.setattr(executors, "kind_of", lambda tensor: "gpu")
    found = []
    launch = distances_gpu._launch

    def noted(kernel, *rest, **options):
        found.append(kernel)
        launch(kernel, *rest, **options)

    monkeypatch.setattr(distances_gpu, "_launch", noted)
    yield found
    assert found


def vectors(shape, kind, count=3):
    generator = torch.Generator().manual_seed(shape[-1])
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [one.to(kind).to(DEVICE).requires_grad_() for one in made]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_as_by_plain_operations_in_float64(kind, shape, launches):
    target = torch.arange(shape[0], device=DEVICE) % 2
    apart = 1.5 * shape[-1] ** 0.5
    for call, count in [
        (lambda *v: triplet(*v, eps=0.01), 3),
        (lambda *v: triplet(*v, swap=True), 3),
        (lambda *v: contrastive(*v, target, margin=apart), 2),
    ]:
        launches.clear()
        given = vectors(shape, kind, count)
        found = call(*given)
        slopes = torch.autograd.grad(found, given)
        assert launches == [distances_gpu.distances, distances_gpu.slopes]
        wide = [one.detach().double().requires_grad_() for one in given]
        exact = call(*wide)
        torch.testing.assert_close(found, exact.float(), rtol=1e-6, atol=1e-6)
        for one, right in zip(slopes, torch.autograd.grad(exact, wide), strict=True):
            atol = 2.0**-25 if kind is torch.float16 else 1e-7
            torch.testing.assert_close(one.double(), right, rtol=KINDS[kind], atol=atol)


def test_each_subset_of_gradients_and_rows_left_out():
    given = vectors((6, 5), torch.float32)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.5, 0.0], device=DEVICE)
    slopes = torch.autograd.grad(triplet(*given, weight=weight, swap=True), given)
    with torch.no_grad():
        for one in given:
            one[weight == 0] = torch.nan
    for wanted in itertools.product([False, True], repeat=3):
        some = [one.detach().requires_grad_(want) for one, want in zip(given, wanted, strict=True)]
        found = triplet(*some, weight=weight, swap=True)
        if any(wanted):
            found.backward()
        for one, slope, want in zip(some, slopes, wanted, strict=True):
            assert torch.equal(one.grad, slope) if want else one.grad is None
