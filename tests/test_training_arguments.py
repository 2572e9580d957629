"""The other arguments of a run: epochs, seed, device, the task and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import line, points, same, task, weights

import ravine
from ravine.errors import ArgumentError, RavineError, TaskError, UnknownNameError


@pytest.mark.parametrize("epochs", [-1, 1.0, True, "3"])
def test_bad_epochs_are_refused(epochs: Any) -> None:
    with pytest.raises(ArgumentError, match="epochs cannot be used"):
        ravine.train(task(), epochs=epochs)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0", True])
def test_a_bad_seed_is_refused(seed: Any) -> None:
    with pytest.raises(RavineError, match="the seed is"):
        ravine.train(task(), seed=seed)


@pytest.mark.parametrize("device", ["cpuu", "meta", 3.5, "cuda:99"])
def test_a_bad_device_is_refused(device: Any) -> None:
    with pytest.raises(ArgumentError, match="the device cannot be used"):
        ravine.train(task(), device=device)


def test_no_epoch_at_all(tmp_path: Path) -> None:
    made = task(test=points(10, seed=2))
    record = ravine.train(made, epochs=0, run_dir=tmp_path / "run", regularize="early_stopping()")
    assert same(weights(record.model), weights(made.model))
    assert (record.status, record.history, record.facts["steps"]) == ("completed", [], 0)
    assert set(record.metrics) == {"test/loss", "test/accuracy"}
    assert len(record.history.to_frame()) == 0
    assert "<html" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_task_by_name_by_function_by_file_and_as_an_object(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch, ravine\n"
        "def task(seed):\n"
        "    X = torch.linspace(-1, 1, 16)[:, None]\n"
        "    return ravine.Task(model=torch.nn.Linear(1, 1), loss='mse', train=(X, 2 * X),\n"
        "                       name='mine')\n"
    )
    assert ravine.train("wine", epochs=1).config["task"] == "wine"
    assert ravine.train(file, epochs=1).name == "mine"
    assert ravine.train(str(file), epochs=1).config["task"] == str(file)
    assert ravine.train(lambda seed: line(), epochs=1).name == "line"
    one, two = (ravine.train(file, epochs=0, seed=seed).model.weight for seed in (0, 1))
    assert not torch.equal(one, two)


def test_the_tasks_own_settings_hold_where_nothing_is_said() -> None:
    settings = {
        "optimizer": "sgd(lr=0.5)",
        "epochs": 2,
        "batch_size": 7,
        "regularize": ["dropout(0.25)"],
    }
    config = ravine.train(task(**settings)).config
    assert config["optimizer"] == "sgd(lr=0.5)"
    assert (config["epochs"], config["batch_size"]) == (2, 7)
    assert config["regularize"] == ["dropout(0.25)"]
    said = ravine.train(task(**settings), "adam", batch_size="all", epochs=1, regularize=())
    assert said.config["optimizer"] == "adam()"
    assert (said.config["epochs"], said.config["batch_size"]) == (1, "all")
    assert said.config["regularize"] == []
    bare = ravine.train(task()).config
    assert (bare["optimizer"], bare["batch_size"], bare["epochs"]) == ("adam(lr=0.001)", 64, 20)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        ravine.train("digit")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such task file"]),
        ("def task(seed:\n", ["not valid Python", "line 1"]),
        ("def tsak(seed): ...\n", ["no function 'task'", "did you mean"]),
        ("def task(seed):\n    return 1 / 0\n", ["ZeroDivisionError", "line 2"]),
        ("def task(seed):\n    pass\n", ["is a return missing?"]),
    ],
    ids=["missing", "syntax", "name", "fails", "returns nothing"],
)
def test_a_task_file_that_cannot_be_used(
    text: str | None, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TaskError) as caught:
        ravine.train(file)
    assert all(word in str(caught.value) for word in words), str(caught.value)
