"""Which checkpoints stay: the last ones, and that of the best epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_resume import OPTIMIZER, SETTINGS, broken_off, check, made
from training_cases import overfitting

import ravine
from ravine.errors import ArgumentError
from ravine.training.checkpoints import Position, Store


def best_of(run: Path) -> tuple[Position, dict[str, Any]]:
    store = Store(run / "best", keep=1)
    (position,) = store.positions()
    _, state, passed = store.newest()
    store.close()
    assert not passed
    return position, state["loop"]["model"]["state"]


@pytest.mark.parametrize("keep", [1, 3])
def test_so_many_of_the_last_stay(keep: int, tmp_path: Path) -> None:
    ravine.train(
        made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path, checkpoint_every=1, keep_checkpoints=keep
    )
    steps = [p.step for p in Store(tmp_path / "checkpoints").positions()]
    assert steps == [12, 12, 11, 10][:keep][::-1]  # that of the end has the number of the epoch too


METRICS = [
    ("early_stopping(patience=30)", "valid/loss", min),
    ("early_stopping(patience=30, metric='valid/accuracy')", "valid/accuracy", max),
    ((), "valid/loss", min),
]


@pytest.mark.parametrize(("regularize", "metric", "choose"), METRICS, ids=["loss", "acc", "none"])
@pytest.mark.parametrize("every", [1, "auto"])
def test_the_best_epoch_stays_with_its_weights(
    regularize: Any, metric: str, choose: Any, every: Any, tmp_path: Path
) -> None:
    by_epoch: list[dict[str, torch.Tensor]] = []

    def look(row: Any, state: Any) -> None:
        by_epoch.append({k: v.clone() for k, v in state.model.state_dict().items()})

    record = ravine.train(
        overfitting(), "adam(lr=0.05)", epochs=12, regularize=regularize, run_dir=tmp_path,
        checkpoint_every=every, on_epoch=look,
    )  # fmt: skip
    values = record.history.column(metric)
    epoch = values.index(choose(values)) + 1
    assert epoch < 12
    position, saved = best_of(tmp_path)
    assert position.epoch == epoch
    assert saved.keys() == by_epoch[epoch - 1].keys()
    assert all(torch.equal(saved[k], by_epoch[epoch - 1][k]) for k in saved)


def test_without_validation_the_training_loss_decides(tmp_path: Path) -> None:
    task = overfitting(valid=None)
    record = ravine.train(task, "sgd(lr=0.1)", epochs=5, regularize=(), run_dir=tmp_path)
    losses = record.history.column("train/loss")
    assert best_of(tmp_path)[0].epoch == losses.index(min(losses)) + 1


@pytest.mark.parametrize("step", [1, 2, 5, 9])
def test_the_best_epoch_survives_a_kill(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"epochs": 12, "batch_size": 30, "regularize": (), "seed": 3}
    ravine.train(overfitting(), "adam(lr=0.05)", **options, run_dir=tmp_path / "whole")
    broken_off(
        monkeypatch, step, overfitting(), optimizer="adam(lr=0.05)", run_dir=tmp_path / "run",
        checkpoint_every=2, **options,
    )  # fmt: skip
    ravine.train(overfitting(), resume=tmp_path / "run")
    position, saved = best_of(tmp_path / "run")
    whole, weights = best_of(tmp_path / "whole")
    assert position == whole
    assert all(torch.equal(saved[k], weights[k]) for k in weights)


def test_the_best_is_never_what_a_run_goes_on_from(tmp_path: Path) -> None:
    record = ravine.train(made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        (checkpoint / "manifest.json").write_text("{}")
    seen: list[Any] = []
    check(ravine.train(made(), resume=tmp_path, listeners=[seen.append]), record)
    assert "resumed from the start: there is no checkpoint yet" in seen[0].notes


@pytest.mark.parametrize("keep", [0, -1, True, 1.5, "2"])
def test_a_number_that_is_none(keep: Any) -> None:
    with pytest.raises(ArgumentError, match="keep_checkpoints cannot be used"):
        ravine.train(made(), keep_checkpoints=keep)
