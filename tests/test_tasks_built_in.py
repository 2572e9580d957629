"""What every built-in task promises of its data, model and baseline."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from ravine.errors import (
    ShapeError,
)
from ravine.tasks import TASKS, load_task
from ravine.tasks.text import KNOWN_SHA256


@pytest.fixture(scope="module")
def built_in():
    return {name: load_task(name, 0) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_built_in_is_deterministic_typed_and_disjoint(name, built_in):
    before = torch.get_rng_state()
    task, again, other = built_in[name], TASKS[name](0), TASKS[name](1)
    assert torch.equal(torch.get_rng_state(), before)
    assert task.name == name
    for key, value in task.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    assert not torch.equal(task.train[0], other.train[0])
    classes = task.loss == "cross_entropy"
    for part in (task.train, task.valid, task.test):
        assert part[0].dtype == (torch.int64 if name == "text" else torch.float32)
        assert part[1].dtype == (torch.int64 if classes else torch.float32)
        output = task.model(part[0][:3])
        expected = output.shape[:-1] if classes else output.shape
        assert part[1][:3].shape == expected
    assert torch.equal(task.train[0], again.train[0])
    assert None not in (task.optimizer, task.epochs, task.batch_size)
    # Rows told apart by their bytes; digits and wine hold no row twice, text may hold a phrase.
    rows = [{row.numpy().tobytes() for row in part[0]} for part in (task.train, task.valid)]
    assert not rows[0] & rows[1]


@pytest.mark.parametrize("name", ["digits", "breast-cancer", "diabetes", "wine"])
def test_only_the_training_part_is_standardised_exactly(name, built_in):
    task = built_in[name]
    whole = name == "digits"
    for part, exact in ((task.train[0], True), (task.valid[0], False)):
        mean = part.double().mean() if whole else part.double().mean(0)
        assert bool((mean.abs() < 1e-6).all()) is exact


def test_baseline_is_the_loss_of_the_best_constant(built_in):
    task = built_in["diabetes"]
    y = task.train[1].double()
    assert task.baseline == pytest.approx(float(y.square().mean()), abs=1e-6)
    task = built_in["breast-cancer"]
    share = task.train[1].mean()
    logit = torch.full_like(task.train[1], float(torch.log(share / (1 - share))))
    best = F.binary_cross_entropy_with_logits(logit, task.train[1])
    assert task.baseline == pytest.approx(float(best), abs=1e-6)


def test_text_targets_are_one_ahead_and_the_model_looks_back_only(built_in):
    task = built_in["text"]
    X, y = task.train
    assert torch.equal(X[:, 1:], y[:, :-1])
    start = task.model(X[:2])
    changed = X[:2].clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % task.facts["alphabet"]
    torch.testing.assert_close(task.model(changed)[:, :40], start[:, :40])
    assert not torch.allclose(task.model(changed)[:, 40:], start[:, 40:])
    first = float(F.cross_entropy(start.flatten(0, 1), y[:2].flatten()).detach())
    assert first == pytest.approx(math.log(task.facts["alphabet"]), rel=0.1)
    with pytest.raises(ShapeError, match="T <= 64"):
        task.model(torch.zeros(1, 65, dtype=torch.int64))


def test_text_of_a_known_python_is_the_one_that_was_measured(built_in):
    version = ".".join(map(str, sys.version_info[:3]))
    found = built_in["text"].facts["text_sha256"]
    assert len(found) == 64
    assert found == KNOWN_SHA256.get(version, found)


def test_importing_tasks_leaves_sklearn_alone():
    code = "import sys, ravine.tasks; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
