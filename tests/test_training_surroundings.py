"""Surroundings that do a run harm: a full disk, a directory in use, gone, or with odd names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import programs
import pytest
import torch
from test_training_resume import OPTIMIZER, SETTINGS, broken_off, check, made
from training_cases import numbers, points, same, task, weights

import ravine
from ravine.cli.run import _make_directory
from ravine.errors import (
    CheckpointError,
    RunDirectoryError,
)
from ravine.training.checkpoints import Position, Store

# A disk that is full, a directory that is gone

FULL = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training_surroundings import wide
import ravine
from ravine.training.checkpoints.store import Store
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
save, saved = Store._write, []


def fill(self, *arguments):
    saved.extend([1] * (self.folder.name == "checkpoints"))
    if len(saved) == 4:  # in the middle of a run: there is no room for the tensors
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, limits[1]))
    save(self, *arguments)


Store._write = fill
try:
    ravine.train(wide(), "adam(lr=0.01)", epochs=6, batch_size=16, run_dir=Path({folder!r}),
                 checkpoint_every=2)
except ravine.errors.RavineError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    print(json.dumps([type(error).__name__, str(error), error.record.status]))
"""


def wide() -> ravine.Task:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 300), torch.nn.ReLU(), torch.nn.Linear(300, 3))
    return task(model=model)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="limits of files are POSIX's")
@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 9_000, 30_000])
def test_a_disk_that_fills_up_leaves_a_run_that_goes_on_once_there_is_room(
    room: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    script = FULL.format(tests=str(Path(__file__).parent), folder=str(folder), room=room)
    done = programs.run(["-c", script])
    assert done.returncode == 0, done.stderr
    kind, message, status = json.loads(done.stdout.splitlines()[-1])
    assert status == "failed"
    if room:  # the lines of the history still fit
        assert kind == "CheckpointError"
        assert message.startswith("the checkpoint cannot be written")
        assert "the checkpoints before it are untouched" in message
    assert [p.step for p in Store(folder / "checkpoints").positions()] == [4, 6]
    assert not list((folder / "checkpoints").glob("*.part"))
    resumed = ravine.train(wide(), resume=folder)
    whole = ravine.train(wide(), "adam(lr=0.01)", epochs=6, batch_size=16)
    check(resumed, whole)


def test_a_directory_that_is_taken_away_ends_the_run_and_is_not_made_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def take_away(event: Any) -> None:
        if getattr(event, "row", {}).get("epoch") == 2:
            run.rename(tmp_path / "elsewhere")

    with pytest.raises((CheckpointError, RunDirectoryError)) as caught:
        ravine.train(
            made(), OPTIMIZER, **SETTINGS, run_dir=run, checkpoint_every=1, listeners=[take_away]
        )
    assert "cannot be written" in str(caught.value)
    assert str(run) in str(caught.value)
    assert not run.exists()
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    check(ravine.train(made(), resume=tmp_path / "elsewhere"), whole)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere"
)
def test_a_directory_that_can_only_be_read_is_refused(tmp_path: Path) -> None:
    ravine.train(made(), **SETTINGS, run_dir=tmp_path)
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirectoryError, match="cannot be"):
        ravine.train(made(), resume=tmp_path)


HOLDER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training_cases import task
import ravine


def wait(event):
    if hasattr(event, "row"):
        print("begun", flush=True)
        sys.stdin.readline()


ravine.train(task(), epochs=2, run_dir=Path({folder!r}), listeners=[wait])
"""


@pytest.mark.slow
def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    script = HOLDER.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    with programs.Program(["-c", script], stdin=programs.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for way in ({"resume": tmp_path / "run"}, {"run_dir": tmp_path / "run"}):
            with pytest.raises(RunDirectoryError, match="another process is writing"):
                ravine.train(task(), **way)
        process.communicate("\n\n")
    assert process.returncode == 0
    assert len(ravine.train(task(), resume=tmp_path / "run").history) == 2


def test_half_a_line_of_the_history_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    broken_off(monkeypatch, 8, made(), run_dir=tmp_path, checkpoint_every=1)
    for name in ("history.jsonl", "steps.jsonl"):
        with (tmp_path / name).open("a", encoding="utf-8") as file:
            file.write('{"epoch": 3, "step": 9, "tr')
    resumed = ravine.train(made(), resume=tmp_path)
    check(resumed, whole)
    lines = (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(text) for text in lines] == resumed.history


def test_nothing_depends_on_a_clock_that_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    now = [1e9]

    def back() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    broken_off(monkeypatch, 8, made(), run_dir=tmp_path, checkpoint_every=2)
    check(ravine.train(made(), resume=tmp_path), whole)


@pytest.mark.parametrize(
    "name", ["con", "nul.tar", "a:b", "ends. ", "é" * 90, "任務" * 60, "...", "a/b\\c", "x\ny"]
)
def test_names_that_a_file_system_may_not_have_give_a_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = _make_directory(name + ".py")
    assert made.is_dir()
    assert made.parent == Path("runs")
    stem = made.name
    assert len(stem.encode()) <= 120
    assert not set(stem) & set('<>:"/\\|?*. \n')
    assert stem.split("-")[0].lower() not in ("", "nul") or "-" in stem


# What a resume tidies, and what it notes


def test_what_a_kill_left_half_written_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off(monkeypatch, 8, made(), run_dir=tmp_path, checkpoint_every=1)
    part = tmp_path / "checkpoints" / (Position(5, 1).name + ".part")
    part.mkdir()
    (part / "tensors.safetensors").write_bytes(b"half")
    ravine.train(made(), resume=tmp_path)
    assert not part.exists()


def test_another_torch_is_noted_and_that_numba_is_gone(tmp_path: Path) -> None:
    record = ravine.train(task(train=points()), epochs=2, run_dir=tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["environment"] |= {"torch": "1.0", "numba": "0.61.0"}
    path.write_text(json.dumps(config), encoding="utf-8")
    seen: list[Any] = []
    again = ravine.train(task(train=points()), resume=tmp_path, listeners=[seen.append])
    notes = str(seen[0].notes)
    assert f"torch is {torch.__version__}, and was 1.0: the bits may be others" in notes
    assert "numba is not used, and was 0.61.0: the bits may be others" in notes
    assert same(weights(again.model), weights(record.model))
    assert numbers(again.history) == numbers(record.history)
