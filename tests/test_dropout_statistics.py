"""The masks of dropout are fair and independent."""

from __future__ import annotations

import math

import pytest
import torch

from ravine.engine.philox import stream_seed
from ravine.regularize import Dropout
from ravine.regularize.dropout_mask import (
    CHUNK,
    GROUP,
    RUN,
    Chance,
    drop_compiled,
)

# Each figure below is approximately standard normal under the hypothesis of fair and independent
# masks. The seeds are fixed, so that the tests always give the same answer; for a fair generator
# the probability that a choice of seeds passes a bound of 5 is 5.7e-7 for each figure, and there
# are fewer than 100 of them: the error rate of the whole is under 1e-4.
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
