"""The run directory: what is in it, what is refused, and what stays whole when the disk is full."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import programs
import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn
from training_cases import line, mlp, same, task, weights

import ravine
from ravine.errors import RunDirectoryError
from ravine.training.record import Record
from ravine.training.run_directory import FILES, RunDirectory


def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    record = ravine.train(task(), "adam(lr=0.01)", epochs=3, regularize="l2(0.1)", run_dir=folder)
    assert record.run_dir == folder
    assert {path.name for path in folder.iterdir()} == {*FILES, ".lock"}

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config.pop("data")["train"]["X"]["shape"] == [40, 4]
    assert config == {"config": record.config, "environment": record.environment}
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(text) for text in lines] == record.history
    whole = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert whole == record.to_json()
    assert same(load_file(folder / "model.safetensors"), weights(record.model))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "points" in page


def test_the_history_grows_while_the_run_is_under_way(tmp_path: Path) -> None:
    folder, counts = tmp_path / "run", []

    def listen(event: Any) -> None:
        path = folder / "history.jsonl"
        counts.append(len(path.read_text().splitlines()))

    ravine.train(task(), epochs=3, run_dir=folder, listeners=[listen])
    assert sorted(set(counts)) == [0, 1, 2, 3]


def test_dropout_that_was_put_in_is_not_part_of_the_weights(tmp_path: Path) -> None:
    record = ravine.train(task(), epochs=2, regularize="dropout(0.2)", run_dir=tmp_path / "run")
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert saved.keys() >= {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert same(saved, weights(record.model))


def test_tied_and_transposed_weights_and_buffers_are_saved(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(4, 3)
            self.norm = nn.BatchNorm1d(3)
            self.out = nn.Linear(3, 4)
            self.again = nn.Linear(3, 4)
            self.again.weight = self.out.weight
            self.turned = nn.Parameter(torch.randn(3, 4).T)

        def forward(self, input: Tensor) -> Tensor:
            hidden = self.norm(self.into(input))
            result: Tensor = (self.out(hidden) + self.again(hidden)) @ self.turned
            return result

    record = ravine.train(task(model=Tied()), "sgd(lr=0.1)", epochs=2, run_dir=tmp_path / "run")
    assert record.model.again.weight is record.model.out.weight
    fresh = Tied()
    missing, unexpected = load_model(fresh, str(tmp_path / "run" / "model.safetensors"))
    assert not missing
    assert not unexpected
    assert same(weights(fresh), weights(record.model))


def test_a_model_without_a_form_in_safetensors_keeps_the_rest(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"words": "no tensor"}

        def set_extra_state(self, state: Any) -> None:
            return None

    with pytest.raises(RunDirectoryError, match="no form in safetensors") as caught:
        ravine.train(task(model=Extra(4, 3)), epochs=2, run_dir=tmp_path / "run")
    record = caught.value.record  # type: ignore[attr-defined]
    assert isinstance(record, Record)
    assert record.status == "completed"
    assert {p.name for p in (tmp_path / "run").iterdir()} == {*FILES, ".lock"} - {
        "model.safetensors"
    }


# What is refused


@pytest.mark.parametrize("name", FILES)
def test_a_directory_with_another_run_is_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(RunDirectoryError, match="holds another run") as caught:
        ravine.train(task(), epochs=1, run_dir=tmp_path)
    assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_a_directory_with_other_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ravine.train(line(), epochs=1, run_dir=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    for place in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(RunDirectoryError, match="cannot be made"):
            ravine.train(task(), epochs=1, run_dir=place)
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for place in (tmp_path, tmp_path / "run"):
        with pytest.raises(RunDirectoryError, match="cannot be"):
            ravine.train(task(), epochs=1, run_dir=place)


def test_a_wrong_choice_leaves_no_directory(tmp_path: Path) -> None:
    for wrong in ({"optimizer": "adm"}, {"loss": "mes"}, {"epochs": -1}, {"seed": -1}):
        with pytest.raises(Exception, match=r"adm|mes|epochs|seed"):
            ravine.train(task(), run_dir=tmp_path / "deep" / "run", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# A disk that is full

FULL = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training_cases import task
import ravine
from ravine.errors import RunDirectoryError
from ravine.training.events import EpochDone

limits = resource.getrlimit(resource.RLIMIT_FSIZE)
folder = Path({folder!r})


def fill(event):
    if isinstance(event, EpochDone) and event.row["epoch"] == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, limits[1]))


try:
    ravine.train(task(), epochs=6, run_dir=folder, listeners=[fill])
except RunDirectoryError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(error.__cause__, Exception)
    print(json.dumps([str(error), error.record.status, len(error.record.history)]))
"""


def full_disk(tmp_path: Path, room: str) -> tuple[list[Any], Path]:
    folder = tmp_path / "run"
    script = FULL.format(tests=str(Path(__file__).parent), folder=str(folder), room=room)
    done = programs.run(["-c", script])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="limits of files are POSIX's")
@pytest.mark.slow
def test_a_disk_that_fills_up_in_an_epoch_leaves_whole_lines(tmp_path: Path) -> None:
    # There is room for three rows and a part of the fourth.
    room = "(folder / 'history.jsonl').stat().st_size + 50"
    (message, status, rows), folder = full_disk(tmp_path, room)
    assert message.startswith("history.jsonl cannot be written")
    assert "make room or name another folder" in message
    assert (status, rows) == ("failed", 4)
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(text)["epoch"] for text in lines] == [1, 2, 3]
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    assert not list(folder.glob("*.part"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="limits of files are POSIX's")
@pytest.mark.slow
def test_a_disk_too_small_for_the_page_keeps_the_rest(tmp_path: Path) -> None:
    (message, status, rows), folder = full_disk(tmp_path, "100_000")
    assert message.startswith("the page cannot be written")
    assert (status, rows) == ("completed", 6)
    assert len((folder / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    assert json.loads((folder / "record.json").read_text(encoding="utf-8"))["status"] == "completed"
    assert load_file(folder / "model.safetensors").keys() == mlp().state_dict().keys()
    assert not (folder / "report.html").exists()


def test_weights_that_do_not_fit_are_not_half_there(tmp_path: Path) -> None:
    script = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from ravine.errors import RunDirectoryError\n"
        "from ravine.training.run_directory import RunDirectory\n"
        f"directory = RunDirectory(Path({str(tmp_path / 'run')!r}))\n"
        "directory.start({}, {}, {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    directory._write_weights(SimpleNamespace(model=torch.nn.Linear(100, 100)))\n"
        "except RunDirectoryError as error:\n"
        "    assert str(error).startswith('the weights cannot be written'), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    programs.run(["-c", script], check=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.json",
        "history.jsonl",
        ".lock",
    }


def test_an_abandoned_directory_takes_away_only_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    directory = RunDirectory(tmp_path / "mine" / "a" / "b")
    directory.start({}, {}, {})
    (tmp_path / "mine" / "a" / "other.txt").write_text("mine")
    directory.abandon()
    assert not (tmp_path / "mine" / "a" / "b").exists()
    assert (tmp_path / "mine" / "a" / "other.txt").exists()
