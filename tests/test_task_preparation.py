"""Preparing the data of a task: split, standardisation, entropy, seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ravine.errors import (
    ArgumentError,
)
from ravine.tasks.preparation import Standardiser, class_entropy, split_rows
from ravine.tasks.seeding import seeded


def test_split_is_disjoint_complete_and_in_proportion_by_class():
    classes = torch.tensor([0] * 100 + [1] * 20)
    split = split_rows(120, 3, classes=classes, valid=0.2, test=0.1)
    rows = torch.cat([split.train, split.valid, split.test])
    assert rows.sort().values.tolist() == list(range(120))
    assert torch.bincount(classes[split.valid]).tolist() == [20, 4]
    assert torch.bincount(classes[split.test]).tolist() == [10, 2]
    assert torch.equal(split.valid, split_rows(120, 3, classes=classes, valid=0.2, test=0.1).valid)
    assert not torch.equal(split.valid, split_rows(120, 4, valid=0.2, test=0.1).valid)
    with pytest.raises(ArgumentError, match="too few rows"):
        split_rows(2, 0)


def test_standardiser_against_sklearn_with_a_constant_column():
    from sklearn.preprocessing import StandardScaler

    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    values[:, 1] = 7
    oracle = torch.as_tensor(StandardScaler().fit_transform(values.numpy())).float()
    torch.testing.assert_close(Standardiser.of(values)(values), oracle, rtol=1e-6, atol=1e-7)
    together = Standardiser.of(values, per_column=False)(values)
    assert abs(together.mean()) < 1e-6


def test_class_entropy_is_the_least_loss_of_a_constant():
    labels = torch.tensor([0, 0, 0, 1, 2])
    best = torch.tensor([0.6, 0.2, 0.2]).double().log().expand(5, 3)
    assert class_entropy(labels) == pytest.approx(float(F.cross_entropy(best, labels)), abs=1e-12)


def test_seeded_restores_every_generator():
    import random

    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(KeyError), seeded(5):
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert state == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
