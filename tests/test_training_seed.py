"""The seed of a run: the same bits from it, and the caller's generators are left alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import FORMS, mlp, numbers, points, same, task, weights

import ravine

REGULARIZED = ["dropout(0.3)", "clip_norm(1)"]


@pytest.mark.parametrize("regularize", [(), REGULARIZED], ids=["plain", "dropout"])
@pytest.mark.parametrize("form", ["tensors", "dataset", "loader"])
def test_the_same_seed_gives_the_same_bits(form: str, regularize: Any) -> None:
    runs = []
    for caller in (1, 2):
        torch.manual_seed(caller)  # what the caller drew before does not matter
        made = task(train=FORMS[form](points()))
        torch.manual_seed(caller)
        size = None if form == "loader" else 16
        runs.append(
            ravine.train(made, "adam(lr=0.01)", batch_size=size, epochs=3, regularize=regularize)
        )
    assert same(weights(runs[0].model), weights(runs[1].model))
    assert numbers(runs[0].history) == numbers(runs[1].history)
    assert runs[0].metrics == runs[1].metrics


def test_dropout_of_torch_is_seeded_too() -> None:
    # AlphaDropout draws from torch's global generator.
    model = nn.Sequential(nn.Linear(4, 16), nn.AlphaDropout(0.3), nn.Linear(16, 3))
    runs = []
    for caller in (1, 2):
        torch.manual_seed(caller)
        runs.append(ravine.train(task(model=model), "sgd(lr=0.1)", epochs=2))
    assert same(weights(runs[0].model), weights(runs[1].model))


def test_another_seed_gives_another_model_order_and_mask() -> None:
    records = [ravine.train("wine", epochs=1, seed=seed) for seed in (0, 1)]
    assert not same(weights(records[0].model), weights(records[1].model))

    made = task()  # the same weights from here on: order and masks differ
    order = [ravine.train(made, epochs=1, seed=seed, batch_size=8) for seed in (0, 1)]
    assert not same(weights(order[0].model), weights(order[1].model))
    masks = [
        ravine.train(made, epochs=1, seed=seed, batch_size="all", regularize="dropout(0.5)")
        for seed in (0, 1)
    ]
    assert not same(weights(masks[0].model), weights(masks[1].model))
    still = [ravine.train(made, epochs=1, seed=seed, batch_size="all") for seed in (0, 1)]
    assert same(weights(still[0].model), weights(still[1].model))


def test_the_task_and_the_callers_generators_are_left_as_they_were() -> None:
    made = task(model=mlp(0.5))
    before = weights(made.model)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    record = ravine.train(made, "adam(lr=0.1)", epochs=2, regularize=REGULARIZED)
    assert same(weights(made.model), before)
    assert made.model.training
    assert type(made.model[2]) is nn.Dropout
    assert made.model[2].p == 0.5
    assert all(p.grad is None for p in made.model.parameters())
    assert not record.model.training
    assert not same(weights(record.model), before)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
