"""A run directory is diagnosed: the same task with the choices the run was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_programs import clusters, net
from torch import nn

import ravine
from ravine import Task
from ravine.diagnose import diagnose
from ravine.diagnose.of_run import run_directory, run_program
from ravine.diagnose.program import Program
from ravine.errors import ArgumentTypeError, NonFiniteError, RunDirectoryError
from ravine.report.strict_json import to_strict_json

CHOICES: dict[str, Any] = {
    "optimizer": "sgd(lr=0.05, momentum=0.9, clip_norm=1)",
    "loss": "cross_entropy(label_smoothing=0.1)",
    "batch_size": 7,
    "epochs": 2,
    "regularize": ["dropout(0.25)"],
    "seed": 5,
}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_program_has_the_choices_of_the_run(tmp_path: Path) -> None:
    ravine.train("digits", **CHOICES, run_dir=tmp_path / "try")
    found = run_program(tmp_path / "try")
    fresh = Program(found.source, found.seed).fresh()
    (group,) = fresh.optimizer.param_groups
    assert (type(fresh.optimizer), group["lr"], group["momentum"]) == (ravine.optim.SGD, 0.05, 0.9)
    assert group["clip_norm"] == 1
    assert (fresh.epochs, fresh.train.size, fresh.seed) == (2, 7, 5)
    output, target = torch.randn(4, 10), torch.tensor([0, 1, 2, 0])
    wanted = nn.functional.cross_entropy(output, target, label_smoothing=0.1)
    assert torch.allclose(fresh.loss(output, target), wanted)
    assert [m.p for m in fresh.model.modules() if hasattr(m, "p")] == [0.25, 0.25]
    assert found.reached["status"] == "completed" and "valid/loss" in found.reached
    assert found.notes == ()


@pytest.mark.slow
def test_a_run_whose_rate_was_too_high_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "try"
    with pytest.raises(NonFiniteError):
        ravine.train("digits", "sgd(lr=20)", epochs=2, run_dir=folder)
    before = contents(folder)
    found = ravine.diagnose(str(folder), budget=200)
    assert found.findings[0].name == "lr-too-high"
    assert "status of the run" in found.measured
    assert contents(folder) == before


def test_precision_and_device_of_the_run_that_a_replay_does_not_have_are_told(
    tmp_path: Path,
) -> None:
    ravine.train("wine", epochs=1, precision="bfloat16", accumulate=2, run_dir=tmp_path / "a")
    (note,) = run_program(tmp_path / "a").notes
    assert "in bfloat16" in note and "2 passes for a step" in note
    assert diagnose(tmp_path / "a", budget=0, treat=False).notes == (note,)


def test_what_is_a_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wine").mkdir()
    (tmp_path / "try").mkdir()
    assert run_directory("wine") is None
    assert run_directory("./wine") == Path("wine")
    assert run_directory("try") == run_directory(Path("try")) == Path("try")
    assert run_directory("runs/none") == Path("runs/none")
    assert run_directory("my_task.py") is run_directory("dir/my_task.py") is None
    assert run_directory("unknown") is None
    assert run_directory(lambda seed: None) is None


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, got in (("empty", "a folder without config.json"), ("none", "no such folder")):
        with pytest.raises(RunDirectoryError, match="there is no run to diagnose") as told:
            diagnose(str(tmp_path / name))
        text = str(told.value)
        assert got in text and str(tmp_path / name) in text
        assert "name the directory of a run, or a task" in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"epochs": 2', '"epochs": "two"'),
        lambda text: text.replace('"optimizer"', '"optimiser"'),
        lambda text: "\x00" * 99,
    ],
    ids=["half", "list", "type", "key", "zeros"],
)
def test_a_damaged_configuration(damage: Any, tmp_path: Path) -> None:
    ravine.train("wine", epochs=2, run_dir=tmp_path / "try")
    path = tmp_path / "try" / "config.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunDirectoryError, match="configuration of the run cannot be read") as told:
        diagnose(tmp_path / "try")
    text = str(told.value)
    assert str(path) in text and "what the run wrote when it began" in text
    assert "ravine diagnose TASK" in text


def test_a_damaged_record_and_a_run_that_never_ended(tmp_path: Path) -> None:
    ravine.train("wine", epochs=1, run_dir=tmp_path / "try")
    path = tmp_path / "try" / "record.json"
    path.write_text('{"status": "completed"')
    with pytest.raises(RunDirectoryError, match="record of the run cannot be read") as told:
        diagnose(tmp_path / "try")
    assert str(path) in str(told.value) and "take record.json away" in str(told.value)
    path.unlink()
    assert run_program(tmp_path / "try").reached == {}


def made() -> Task:
    torch.manual_seed(0)
    return Task(model=net(3, 8, 3), loss="cross_entropy", train=clusters(60), name="mine")


def test_a_task_made_in_python_has_to_be_given_again(tmp_path: Path) -> None:
    ravine.train(made(), "sgd(lr=0.3)", epochs=3, run_dir=tmp_path / "try")
    with pytest.raises(RunDirectoryError, match="the task of the run cannot be made again") as told:
        diagnose(tmp_path / "try")
    text = str(told.value)
    assert "'mine': it was made in Python" in text and "run_dir=" in text
    own = made()
    before = {name: value.clone() for name, value in own.model.state_dict().items()}
    found = diagnose(own, run_dir=tmp_path / "try", budget=2)
    assert found.name == "mine" and found.measured["status of the run"] == "completed"
    assert all(torch.equal(before[k], v) for k, v in own.model.state_dict().items())


def test_a_python_file_is_run_only_if_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch, ravine\n"
        "def task(seed):\n"
        "    X = torch.randn(50, 2)\n"
        "    return ravine.Task(model=torch.nn.Linear(2, 1), loss='mse', train=(X, X[:, :1]))\n"
    )
    ravine.train(str(file), epochs=3, run_dir=tmp_path / "try")
    with pytest.raises(RunDirectoryError, match="a file, which is run only if you name it"):
        diagnose(tmp_path / "try")
    found = run_program(tmp_path / "try", str(file))
    assert Program(found.source, 0).fresh().epochs == 3


def test_neither_a_task_nor_a_run() -> None:
    with pytest.raises(ArgumentTypeError, match="there is nothing to diagnose"):
        diagnose()


def test_the_diagnosis_of_a_run_is_strict_json(tmp_path: Path) -> None:
    ravine.train("wine", epochs=1, run_dir=tmp_path / "try")
    found = diagnose(tmp_path / "try", budget=0, treat=False)
    assert json.loads(to_strict_json(found.to_json()))["notes"] == []
