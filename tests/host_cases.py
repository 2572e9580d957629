"""A small model, its data, and the comparison of two runs step by step, for other people's loops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

Trail = list[list[Tensor]]
"""The weights after every step."""


def digits(rows: int, dtype: torch.dtype = torch.float64) -> TensorDataset:
    """Return the first digits that scikit-learn ships, 64 numbers in [0, 1] and a class each."""
    from sklearn.datasets import load_digits

    data = load_digits()
    inputs = torch.tensor(data.data[:rows] / 16, dtype=dtype)
    return TensorDataset(inputs, torch.tensor(data.target[:rows]))


def perceptron(dtype: torch.dtype = torch.float64) -> torch.nn.Sequential:
    """Return the same small model at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return torch.nn.Sequential(
            torch.nn.Linear(64, 12), torch.nn.Tanh(), torch.nn.Linear(12, 10)
        ).to(dtype)


def snapshot(weights: Iterable[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


def assert_trails_agree(ours: Trail, theirs: Trail, steps: int, rtol: float = 1e-12) -> None:
    """Check that two runs made so many steps, moved at each, and had the same weights after each."""
    assert len(ours) == len(theirs) == steps
    for before, after in pairwise(theirs):
        assert not all(map(torch.equal, before, after))
    for mine, other in zip(ours, theirs, strict=True):
        for w, v in zip(mine, other, strict=True):
            torch.testing.assert_close(w, v, rtol=rtol, atol=rtol / 10)


def assert_same_bits(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)
