"""Files of rows that grow: half a line after a kill, cutting, steps.jsonl of a real run."""

from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import programs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_cases import task

import ravine
from ravine.errors import RunDirectoryError
from ravine.training.events import RunStarted, StepDone
from ravine.training.lines import add_line, keep_lines, read_lines, read_steps
from ravine.training.pace import Pace, Sparser
from ravine.training.step_log import StepLog


def rows(path: Path, *steps: int) -> list[dict[str, Any]]:
    made = [{"step": step, "loss": 1 / step} for step in steps]
    for row in made:
        add_line(path, row)
    return made


# Lines


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"step": 1, "loss": 0.1 + 0.2, "lr": 1e-300, "a/b": math.inf, "c": -math.inf, "d": None}
    add_line(path, row)
    add_line(path, {"loss": math.nan})
    first, second = read_lines(path)
    assert first == row
    assert math.isnan(second["loss"])


@pytest.mark.parametrize("cut", range(1, 30))
def test_half_a_line_at_the_end_is_left_out(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = rows(path, 3, 7)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    lost = len(json.dumps(second)) + 1
    assert read_lines(path) == ([first] if cut <= lost else [])
    add = keep_lines(path, lambda _: True)
    assert add == len(read_lines(path))
    assert (
        rows(path, 8) == read_lines(path)[add:]
    )  # what is added later stands on a line of its own


@pytest.mark.parametrize("line", ["{]", "3", '"text"', "[1]", "\xff", ""])
def test_a_whole_line_that_is_no_object_is_an_error(line: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line.encode("latin-1") + b'\n{"step": 3}\n')
    with pytest.raises(RunDirectoryError, match=r"rows\.jsonl cannot be read") as caught:
        read_lines(path)
    assert "line 2 is no JSON object" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="FileNotFoundError"):
        read_lines(tmp_path / "rows.jsonl")
    assert read_steps(tmp_path) == []
    assert keep_lines(tmp_path / "rows.jsonl", lambda _: True) == 0


def test_a_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError) as caught:
        add_line(tmp_path / "gone" / "rows.jsonl", {"step": 1})
    assert str(caught.value).startswith("rows.jsonl cannot be written")


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 50))
def test_cutting_keeps_all_before_the_first_that_goes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], last: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    made = rows(path, *sorted(steps))
    kept = [row for row in made if row["step"] <= last]
    assert keep_lines(path, lambda row: row["step"] <= last) == len(kept)
    assert (read_lines(path) if path.exists() else []) == kept


# steps.jsonl


def started(step: int = 0) -> RunStarted:
    return RunStarted("t", "adam()", "mse()", 9, 2, 20, 4, "fake", step=step)


def test_a_run_that_goes_on_cuts_what_lay_behind_its_checkpoint(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "steps.jsonl"
    for first, last, resumed in ((1, 12, 0), (9, 15, 8), (1, 3, 0)):
        log = StepLog(path, clock=lambda: now[0])
        log(started(step=resumed))
        for step in range(first, last + 1):
            now[0] += 1
            log(StepDone(step, 1, float(first), 1e-3, None))
        assert [row["step"] for row in read_lines(path)] == list(range(1, last + 1))
    assert read_lines(path)[-1] == {"step": 3, "epoch": 1, "rows": 0, "loss": 1.0, "lr": 1e-3}


def test_the_rows_of_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for paced in (Pace, Sparser):
        monkeypatch.setattr(paced, "due", lambda _: True)
    seen: list[Any] = []
    record = ravine.train(
        task(), batch_size=16, epochs=2, run_dir=tmp_path / "run", listeners=[seen.append]
    )
    steps = [event for event in seen if isinstance(event, StepDone)]
    found = read_steps(tmp_path / "run")
    assert found == [
        {
            "step": event.step,
            "epoch": event.epoch,
            "rows": event.rows,
            "loss": event.loss,
            "smoothed_loss": event.smoothed_loss,
            "lr": event.lr,
            "gradient_norm": event.gradient_norm,
        }
        | ({"samples_per_second": event.samples_per_second} if event.step > 1 else {})
        for event in steps
    ]
    sums = [0.0, 0.0]
    sizes = [row["rows"] - before for row, before in zip(found, [0, *_rows(found)], strict=False)]
    for row, size in zip(found, sizes, strict=True):
        sums[row["epoch"] - 1] += row["loss"] * size
    assert [total / 40 for total in sums] == pytest.approx(record.history.column("train/loss"))


def _rows(found: list[dict[str, Any]]) -> list[int]:
    return [row["rows"] for row in found]


def test_a_run_without_a_directory_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ravine.train(task(), epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.slow
def test_what_was_written_before_a_kill_can_be_read(tmp_path: Path) -> None:
    code = (
        "import os, signal, ravine\n"
        "def on_step(state):\n"
        "    if state.epoch == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ravine.train('wine', epochs=99, run_dir='run', on_step=on_step)\n"
    )
    done = programs.run(["-c", code], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    history = read_lines(tmp_path / "run" / "history.jsonl")
    assert [row["epoch"] for row in history] == list(range(1, 40))
    steps = [row["step"] for row in read_steps(tmp_path / "run")]
    assert steps[0] == 1
    assert steps == sorted(set(steps))
