"""What is not finite, in two processes: all of them skip, go back or end at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import in_processes
from test_training_policies import bounded
from test_training_processes import assert_same
from torch import Tensor, nn
from training_cases import line, numbers, poisoned, task, weights

import ravine
from ravine.errors import NonFiniteError


def skipping() -> ravine.Task:
    torch.manual_seed(0)
    X, y = poisoned(bad=11)
    model = nn.Linear(4, 3).double()
    return task(model=model, train=(X.double(), y), valid=None, loss=far)


def far(output: Tensor, target: Tensor) -> Tensor:
    """A mean over rows that is infinite for one with an output that is large."""
    rows = nn.functional.cross_entropy(output, target, reduction="none")
    return torch.where(output.abs().amax(1) > 1e20, torch.inf, rows).mean()


def rolling() -> ravine.Task:
    return line(loss=bounded, valid=None)


def run(policy: str, parallel: str | None, run_dir: Path | None) -> Any:
    make, optimizer = (
        (skipping, "sgd(lr=0.01)") if policy == "skip" else (rolling, "sgd(lr=8, momentum=0.5)")
    )
    options: dict[str, Any] = {"batch_size": 4, "epochs": 6, "regularize": ()}
    try:
        record = ravine.train(
            make(), optimizer, **options, nonfinite=policy, parallel=parallel, run_dir=run_dir
        )
    except NonFiniteError as error:
        record = error.record  # type: ignore[attr-defined]
    counts = {name: record.facts.get(name) for name in ("skipped", "rollbacks")}
    return (weights(record.model), numbers(record.history), record.metrics), counts, record.status


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_two_processes_do_what_one_does(policy: str, parallel: str, tmp_path: Path) -> None:
    alone = run(policy, None, None)
    assert any(alone[1].values())
    for name in (None, tmp_path / "run"):
        for found in in_processes(2, run, policy, parallel, name):
            assert found[1:] == alone[1:]
            assert_same(found[0], alone[0])


@pytest.mark.slow
def test_two_processes_that_stop_leave_a_finite_state(tmp_path: Path) -> None:
    for found in in_processes(2, run, "stop", "data", tmp_path / "run"):
        assert found[2] == "diverged"
        assert all(bool(torch.isfinite(value).all()) for value in found[0][0].values())
