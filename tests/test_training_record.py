"""What a run tells: its events, the rows of its history, its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from training_cases import line, points, task

import ravine
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone


def test_the_events_come_in_order_and_tell_the_run() -> None:
    events: list[Any] = []
    record = ravine.train(
        task(), "sgd(lr=0.1, l2=0.01)", batch_size=16, epochs=2, listeners=[events.append]
    )
    started, ended = events[0], events[-1]
    assert isinstance(started, RunStarted)
    assert (started.task, started.epochs, started.steps, started.batch_size) == ("points", 2, 6, 16)
    assert started.weights == 4 * 16 + 16 + 16 * 3 + 3
    assert started.notes == ("l2 on 112 weights; 19 biases and norm weights left out",)
    assert isinstance(ended, RunEnded)
    assert ended.record is record
    assert [e.row for e in events if isinstance(e, EpochDone)] == record.history
    steps = [e for e in events if isinstance(e, StepDone)]
    assert steps[0].step == steps[0].epoch == 1
    assert steps[0].lr == 0.1
    assert steps[0].gradient_norm > 0


def test_a_row_holds_the_numbers_of_its_epoch() -> None:
    record = ravine.train(line(), "gradient_descent(lr=0.1)", batch_size="all", epochs=2)
    first = record.history[0]
    x, y = line().train
    # From w = b = 0: the loss is the mean of y^2, its gradient -2 mean(x y) and -2 mean(y).
    slope, offset = 2 * (x * y).mean().item(), 2 * y.mean().item()
    assert first["train/loss"] == pytest.approx((y**2).mean().item(), rel=1e-12)
    assert first["gradient_norm"] == pytest.approx(np.hypot(slope, offset), rel=1e-12)
    assert (first["epoch"], first["step"], first["lr"]) == (1, 1, 0.1)
    assert first["seconds"] > 0
    assert record.metrics == {"train/loss": record.history[1]["train/loss"]}


def test_the_record_is_plain_json_of_the_agreed_shape() -> None:
    record = ravine.train(task(test=points(9)), "adam", epochs=2, regularize=["dropout(0.1)"])
    data = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert data == record.to_json()
    assert set(data) == {
        "kind", "name", "ravine", "status", "message",
        "config", "environment", "facts", "metrics", "findings", "history",
    }  # fmt: skip
    assert (data["kind"], data["name"], data["status"], data["message"]) == (
        "train", "points", "completed", "",
    )  # fmt: skip
    assert data["config"] == {
        "task": "points",
        "optimizer": "adam()",
        "loss": "cross_entropy()",
        "batch_size": 64,
        "epochs": 2,
        "regularize": ["dropout(0.1)"],
        "seed": 0,
        "device": "cpu",
        "accumulate": 1,
        "precision": "float32",
        "parallel": None,
        "compile": False,
        "checkpoint_activations": False,
        "nonfinite": "stop",
    }
    assert {"python", "torch", "platform", "cpu", "threads"} <= set(data["environment"])
    assert {
        "weights", "optimizer", "kernel", "train_samples", "seconds", "steps", "samples_per_second",
    } <= set(data["facts"])  # fmt: skip
    assert set(data["history"][0]) == {
        "epoch", "step", "lr", "gradient_norm", "train/loss", "valid/loss", "valid/accuracy",
        "seconds",
    }  # fmt: skip
    assert set(data["metrics"]) == {
        "train/loss", "valid/loss", "valid/accuracy", "test/loss", "test/accuracy",
    }  # fmt: skip


def test_the_history_is_a_frame_and_the_record_says_what_it_is(tmp_path: Path) -> None:
    record = ravine.train(task(), epochs=3)
    frame = record.history.to_frame()
    assert list(frame.index) == [1, 2, 3]
    assert frame.index.name == "epoch"
    assert frame["valid/loss"].tolist() == record.history.column("valid/loss")
    assert record.history.column("none of it") == [None] * 3
    assert repr(record).startswith("Record('points', completed: train/loss=")
    assert "valid/accuracy=" in repr(record)
    page = record.report(tmp_path / "page.html")
    assert page.stat().st_size > 100_000


def test_a_validation_loss_that_is_not_finite_is_told_and_not_hidden(tmp_path: Path) -> None:
    X, y = points(5)
    X[0] = 3e38  # its square is infinite; the training data's is not
    made = task(loss=lambda o, t: nn.functional.cross_entropy(o, t) + (o**2).mean(), valid=(X, y))
    record = ravine.train(made, epochs=1, run_dir=tmp_path / "run")
    assert record.status == "completed"
    assert not np.isfinite(record.metrics["valid/loss"])
    text = (tmp_path / "run" / "record.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["valid/loss"] in (
        "NaN", "Infinity",
    )  # fmt: skip


def test_events_of_steps_are_not_sent_for_every_step() -> None:
    events: list[Any] = []
    ravine.train(task(), batch_size=1, epochs=3, listeners=[events.append])
    assert 1 <= sum(isinstance(event, StepDone) for event in events) < 120
