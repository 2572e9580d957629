"""Event files, read back by TensorBoard itself and compared with the record."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from training_cases import points, task

import ravine
from ravine.errors import ArgumentError, MissingPackageError
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone
from ravine.training.pace import Pace, Sparser
from ravine.training.tensorboard import TensorBoardListener

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard"
)

Points = list[tuple[int, float]]


def read(folder: Path) -> Any:
    files = event_accumulator.EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "histograms": 0}
    )
    return files.Reload()


def scalars(files: Any, tag: str) -> Points:
    return [(event.step, event.value) for event in files.Scalars(tag)]


def in_float32(pairs: list[tuple[int, float]]) -> Points:
    return [(step, float(np.float32(value))) for step, value in pairs]


@pytest.fixture
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event and a point for every step, however quick."""
    for paced in (Pace, Sparser):
        monkeypatch.setattr(paced, "due", lambda _: True)


@pytest.mark.usefixtures("_every_step")
def test_the_curves_are_those_of_the_record(tmp_path: Path) -> None:
    seen: list[Any] = []
    record = ravine.train(
        task(test=points(20, seed=9)),
        "adam(lr=cosine(20, peak=0.01))",
        batch_size=16,
        epochs=4,
        run_dir=tmp_path / "run",
        tensorboard=True,
        listeners=[seen.append],
        on_epoch=lambda row, state: state.log("valid/f1", 0.25 * state.epoch),
    )
    files = read(tmp_path / "run" / "tensorboard")
    steps = [event for event in seen if isinstance(event, StepDone)]
    assert len(steps) == 12
    by_step = {
        "train/loss": [(event.step, event.loss) for event in steps],
        "train/smoothed_loss": [(event.step, event.smoothed_loss) for event in steps],
        "lr": [(event.step, event.lr) for event in steps],
        "gradient_norm": [(event.step, event.gradient_norm) for event in steps],
        "samples_per_second": [(e.step, e.samples_per_second) for e in steps[1:]],
    }
    by_epoch = {
        tag: [(row["step"], row[name]) for row in record.history]
        for tag, name in {
            "train/epoch_loss": "train/loss",
            "valid/loss": "valid/loss",
            "valid/accuracy": "valid/accuracy",
            "valid/f1": "valid/f1",
        }.items()
    }
    at_end = {tag: [(12, record.metrics[tag])] for tag in ("test/loss", "test/accuracy")}
    expected = by_step | by_epoch | at_end
    assert set(files.Tags()["scalars"]) == set(expected)
    for tag, pairs in expected.items():
        assert scalars(files, tag) == in_float32(pairs), tag  # type: ignore[arg-type]
    (text,) = files.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert json.loads(shown) == record.config
    assert all(part.startswith("    ") for part in shown.splitlines())


@pytest.mark.usefixtures("_every_step")
def test_steps_json_and_tensorboard_agree(tmp_path: Path) -> None:
    ravine.train(task(), batch_size=16, epochs=2, run_dir=tmp_path / "run", tensorboard=True)
    text = (tmp_path / "run" / "steps.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    files = read(tmp_path / "run" / "tensorboard")
    assert scalars(files, "train/loss") == in_float32([(r["step"], r["loss"]) for r in rows])


def started(step: int = 0) -> RunStarted:
    return RunStarted("t", "adam()", "mse()", 9, 2, 20, 4, "fake", step=step, config={"seed": 3})


def feed(listener: TensorBoardListener, first: int, last: int, loss: float) -> None:
    for step in range(first, last + 1):
        listener(StepDone(step, 1, loss, 1e-3, None))
    listener(EpochDone({"epoch": 1, "step": last, "valid/loss": loss}))


@pytest.mark.usefixtures("_every_step")
def test_a_run_that_goes_on_voids_what_lay_behind_its_checkpoint(tmp_path: Path) -> None:
    killed = TensorBoardListener(tmp_path)
    killed(started())
    feed(killed, 1, 12, 1.0)
    killed.writer.flush()  # killed here: it never closes
    resumed = TensorBoardListener(tmp_path)
    resumed(started(step=8))
    feed(resumed, 9, 15, 2.0)
    resumed.writer.close()
    files = read(tmp_path)
    assert scalars(files, "train/loss") == [(k, 1.0 if k <= 8 else 2.0) for k in range(1, 16)]
    assert scalars(files, "valid/loss") == [(15, 2.0)]
    assert len(files.Tensors("config/text_summary")) == 1
    killed.writer.close()


@pytest.mark.usefixtures("_every_step")
def test_values_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    listener = TensorBoardListener(tmp_path)
    listener(started())
    listener(StepDone(1, 1, math.inf, 1e-3, math.nan))
    listener.writer.close()
    files = read(tmp_path)
    assert scalars(files, "train/loss") == [(1, math.inf)]
    assert math.isnan(files.Scalars("gradient_norm")[0].value)


def test_nothing_is_written_before_the_first_number(tmp_path: Path) -> None:
    listener = TensorBoardListener(tmp_path / "board")
    listener(started())
    listener(RunEnded(None))
    assert not (tmp_path / "board").exists()
    with pytest.raises(ravine.errors.RavineError):
        ravine.train(
            task(loss=lambda o, t: o), epochs=1, run_dir=tmp_path / "run", tensorboard=True
        )
    assert not (tmp_path / "run").exists()


def test_a_histogram_of_ones_own_goes_beside(tmp_path: Path) -> None:
    board = TensorBoardListener(tmp_path)

    def on_epoch(row: Any, state: Any) -> None:
        for name, weight in state.model.named_parameters():
            board.writer.add_histogram(name, weight, state.step)

    ravine.train(task(), epochs=2, listeners=[board], on_epoch=on_epoch)
    files = read(tmp_path)
    assert files.Tags()["histograms"] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert len(files.Histograms("0.weight")) == 2


def test_without_a_run_directory_it_says_what_to_do() -> None:
    with pytest.raises(ArgumentError) as caught:
        ravine.train(task(), tensorboard=True)
    assert "give run_dir, or listeners=[TensorBoardListener(folder)]" in str(caught.value)


def test_a_missing_package_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError) as caught:
        ravine.train(task(), run_dir=tmp_path / "run", tensorboard=True)
    assert "pip install tensorboard, or ravine[tensorboard]" in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_writes_event_files(tmp_path: Path) -> None:
    main = "from ravine.cli import main; main()"
    words = ["train", "wine", "--epochs", "3", "--tensorboard", "--json"]
    done = programs.run(["-c", main, *words], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    (folder,) = (tmp_path / "runs").iterdir()
    rows = record["history"]
    pairs = [(row["step"], row["valid/loss"]) for row in rows]
    assert scalars(read(folder / "tensorboard"), "valid/loss") == in_float32(pairs)
    assert "Traceback" not in done.stderr
