"""Whole optimizers on the GPU executor, sweeps and numbers that are state among them.

Run by test_gpu.py in a process of its own; under TRITON_INTERPRET=1 the tensors are on the CPU.
"""

from __future__ import annotations

import pytest
import torch
from gpu_support import DEVICE, ONE_TYPE, SIZES, TOLERANCE

import ravine.optim
from ravine.engine import gpu
from ravine.optim import plan
from ravine.rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")

STATEFUL = [name for name, rule in RULES.items() if rule.numbers or rule.shared]
SWEPT = [name for name, rule in RULES.items() if rule.equation.reduces]
EVERYTHING = {"clip_norm": 1.0, "clip_value": 0.5, "l2": 0.1, "l1": 0.1, "average": 0.9}


@pytest.fixture(autouse=True)
def on_the_gpu_executor(monkeypatch):
    monkeypatch.setattr(plan, "executor", lambda name: gpu)


def run(name, backend, dtype, options):
    generator = torch.Generator().manual_seed(3)
    weights = [
        torch.nn.Parameter((torch.rand(size, generator=generator) + 0.25).to(dtype).to(DEVICE))
        for size in SIZES
    ]
    groups = [{"params": weights[:3]}, {"params": weights[3:], "lr": 0.02}]
    optimizer = getattr(ravine.optim, name)(groups, lr=0.01, backend=backend, **options)
    for step in range(3):
        for k, w in enumerate(weights):
            g = torch.randn(w.shape, generator=generator).to(dtype).to(DEVICE)
            w.grad = None if (step, k) == (2, 0) or (step, k) == (1, 3) else g
        optimizer.step()
    return weights, optimizer


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({}, dtype) for dtype in TOLERANCE] + [(EVERYTHING, dtype) for dtype in ONE_TYPE],
    ids=lambda one: ("every-option" if one else "plain") if isinstance(one, dict) else str(one),
)
@pytest.mark.parametrize("name", sorted({*STATEFUL, *SWEPT}))
def test_sweeps_and_numbers_against_the_reference(name, options, dtype):
    ours, a = run(name, "auto", dtype, options)
    theirs, b = run(name, "reference", dtype, options)
    assert ("sweeps" in a.explain()) == (name in SWEPT)
    for w, v in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, v, **TOLERANCE[dtype])
        for number in RULES[name].numbers:
            torch.testing.assert_close(a.state[w][number], b.state[v][number], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_a_cautious_step_against_the_reference(name):
    """In float64 alone: a sign that rounding decides changes the mean of a tensor."""
    ours, a = run(name, "auto", torch.float64, {"cautious": True})
    theirs, _ = run(name, "reference", torch.float64, {"cautious": True})
    assert "cautious_step" in a.explain()
    for w, v in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-10, atol=1e-12)
