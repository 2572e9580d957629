"""A run that is interrupted or fails: what was reached is kept; of nothing, nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import mlp, numbers, overfitting, points, same, task, weights

import ravine
from ravine.errors import TaskError
from ravine.training.events import EpochDone, RunEnded, RunStarted


def at_epoch(number: int, error: BaseException) -> Callable[[Any], None]:
    def listen(event: Any) -> None:
        if isinstance(event, EpochDone) and event.row["epoch"] == number:
            raise error

    return listen


def test_ctrl_c_in_a_listener_keeps_what_was_reached(tmp_path: Path) -> None:
    listeners = [at_epoch(2, KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt) as caught:
        ravine.train(task(), batch_size=10, epochs=5, listeners=listeners, run_dir=tmp_path / "run")
    record = caught.value.record  # type: ignore[attr-defined]
    assert (record.status, len(record.history)) == ("interrupted", 2)
    assert record.message == "in epoch 3, after step 8"
    assert (tmp_path / "run" / "record.json").is_file()
    short = ravine.train(task(), batch_size=10, epochs=2)
    assert same(weights(record.model), weights(short.model))


def test_ctrl_c_in_the_middle_of_an_epoch() -> None:
    class Sudden(nn.Sequential):
        calls = 0

        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                Sudden.calls += 1
                if Sudden.calls == 7:
                    signal.raise_signal(signal.SIGINT)
            return super().forward(input)

    torch.manual_seed(0)
    ended: list[Any] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        ravine.train(task(model=Sudden(*mlp())), batch_size=10, epochs=5, listeners=[ended.append])
    record = caught.value.record  # type: ignore[attr-defined]
    assert record.message == "in epoch 2, after step 7, by SIGINT"
    assert (record.status, len(record.history), record.facts["steps"]) == ("interrupted", 1, 7)
    assert isinstance(ended[-1], RunEnded)


def test_an_error_after_the_first_step_keeps_the_run(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        ravine.train(
            task(),
            epochs=5,
            listeners=[at_epoch(3, ZeroDivisionError("of a listener"))],
            run_dir=tmp_path / "run",
        )
    record = caught.value.record  # type: ignore[attr-defined]
    assert (record.status, len(record.history)) == ("failed", 3)
    assert record.message == "ZeroDivisionError: of a listener"
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_an_error_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    def start(event: Any) -> None:
        if isinstance(event, RunStarted):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ravine.train(task(), run_dir=tmp_path / "run", listeners=[start])
    wrong = task(train=(points()[0][:, :3], points()[1]), valid=None)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ravine.train(wrong, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError):
        ravine.train(wrong, run_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_an_empty_stream_leaves_no_run(tmp_path: Path) -> None:
    class Nothing(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(TaskError, match="gave no batch"):
        ravine.train(task(train=Nothing()), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# A run that is over is resumed


def notes_of(made: ravine.Task, **where: Any) -> tuple[ravine.Record, str]:
    seen: list[Any] = []
    record = ravine.train(made, **where, listeners=[seen.append])
    return record, "\n".join(seen[0].notes)


def test_a_run_that_is_over_says_so_and_how_it_goes_on(tmp_path: Path) -> None:
    first = ravine.train(task(), "sgd(lr=0.1)", epochs=3, run_dir=tmp_path)
    again, said = notes_of(task(), resume=tmp_path)
    assert "nothing is trained: 3 epochs are done and 3 asked for; a larger epochs" in said
    assert numbers(again.history) == numbers(first.history)
    shorter, said = notes_of(task(), resume=tmp_path, epochs=2)
    assert "3 epochs are done and 2 asked for" in said
    assert numbers(shorter.history) == numbers(first.history)
    _, said = notes_of(task(), resume=tmp_path, epochs=5)
    assert "resumed at step 3, epoch 4" in said
    assert "nothing" not in said


def test_a_run_that_stopped_early_says_so_when_it_is_resumed(tmp_path: Path) -> None:
    regularize = "early_stopping(patience=1)"
    first = ravine.train(overfitting(), "sgd(lr=1)", regularize=regularize, run_dir=tmp_path)
    assert first.status == "stopped early"
    again, said = notes_of(overfitting(), resume=tmp_path, epochs=99)
    assert f"the run had stopped early after epoch {len(first.history)}, since valid/loss" in said
    assert again.status == "stopped early"
    assert numbers(again.history) == numbers(first.history)
