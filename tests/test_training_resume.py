"""A run that was broken off goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import FORMS, numbers, points, same, task, weights

import ravine
from ravine.errors import Interrupted, ResumeError, RunDirectoryError
from ravine.tasks import Task
from ravine.training import Record
from ravine.training.run_directory import RunDirectory

SETTINGS: dict[str, Any] = {
    "batch_size": 16,
    "epochs": 4,
    "seed": 3,
    "regularize": ["dropout(0.3)", "early_stopping(patience=9)"],
}
OPTIMIZER = "adam(lr=warmup(3) >> cosine(9, peak=1e-1), average=0.9, clip_norm=1)"


class KilledError(Exception):
    """Ends a run between two steps as a kill does: nothing is written after it."""


def made(form: str = "tensors") -> Task:
    return task(train=FORMS[form](points()))


def broken_off(
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    made: Task,
    optimizer: str = OPTIMIZER,
    **settings: Any,
) -> None:
    """Run until a step, leave the checkpoints written by then, and nothing else."""
    from ravine.training.keeper import Keeper

    after = Keeper.after_step

    def killed(self: Keeper) -> None:
        after(self)
        if self.loop.step == step:
            self.store.wait()
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "after_step", killed)
        with pytest.raises(KilledError):
            ravine.train(made, optimizer, **SETTINGS | settings)


def check(one: Record, other: Record) -> None:
    assert same(weights(one.model), weights(other.model))
    assert numbers(one.history) == numbers(other.history)
    assert one.metrics == other.metrics
    assert one.status == other.status == "completed"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [1, 3, 5, 11])
def test_a_resumed_run_is_the_unbroken_one(
    form: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"batch_size": None} if form.startswith("loader") else {}
    whole = ravine.train(made(form), OPTIMIZER, **SETTINGS | own)
    run = tmp_path / "run"
    broken_off(monkeypatch, step, made(form), run_dir=run, checkpoint_every=1, **own)
    torch.manual_seed(99)  # what the caller did in between does not matter
    resumed = ravine.train(made(form), resume=run)
    check(resumed, whole)
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(text) for text in lines] == resumed.history


def test_a_checkpoint_some_steps_old_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    broken_off(monkeypatch, 11, made(), run_dir=tmp_path, checkpoint_every=4)
    check(ravine.train(made(), resume=tmp_path), whole)


def test_a_run_without_a_checkpoint_begins_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    broken_off(monkeypatch, 5, made(), run_dir=tmp_path, checkpoint_every=None)
    seen: list[Any] = []
    check(ravine.train(made(), resume=tmp_path, listeners=[seen.append]), whole)
    assert "resumed from the start: there is no checkpoint yet" in seen[0].notes


def test_a_run_that_ended_gives_its_record_again_and_may_be_longer(tmp_path: Path) -> None:
    first = ravine.train(made(), "sgd(lr=0.1)", **SETTINGS, run_dir=tmp_path)
    again = ravine.train(made(), resume=tmp_path)
    check(again, first)
    longer = ravine.train(made(), resume=tmp_path, epochs=7)
    check(longer, ravine.train(made(), "sgd(lr=0.1)", **SETTINGS | {"epochs": 7}))
    assert json.loads((tmp_path / "config.json").read_text())["config"]["epochs"] == 7


def test_a_new_learning_rate_is_taken(tmp_path: Path) -> None:
    ravine.train(made(), "adam(lr=0.1)", **SETTINGS, run_dir=tmp_path)
    record = ravine.train(made(), "adam(lr=0.01)", resume=tmp_path, epochs=6)
    assert record.history.column("lr") == [0.1] * 4 + [0.01] * 2


def test_a_signal_finishes_the_step_and_saves(tmp_path: Path) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)

    def stop(event: Any) -> None:
        if getattr(event, "row", {}).get("epoch") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"):
        ravine.train(made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path, listeners=[stop])
    assert signal.getsignal(signal.SIGTERM) is before
    check(ravine.train(made(), resume=tmp_path), whole)


def damage(path: Path, change: Callable[[bytearray], Any]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_changed_bit_is_found_and_the_checkpoint_before_is_taken(
    name: str, where: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS)
    broken_off(monkeypatch, 8, made(), run_dir=tmp_path, checkpoint_every=1)
    newest = max((tmp_path / "checkpoints").iterdir())

    def flip(data: bytearray) -> None:
        data[int(where * len(data))] ^= 1

    damage(newest / name, flip)
    seen: list[Any] = []
    resumed = ravine.train(made(), resume=tmp_path, listeners=[seen.append])
    check(resumed, whole)
    (note,) = (note for note in seen[0].notes if "damaged" in note)
    assert newest.name in note
    assert name in note
    assert (newest.parent / f"{newest.name}.damaged").is_dir()


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 8}, ["batch_size differs", "8", "16"]),
        ({"seed": 4}, ["seed differs", "4", "3"]),
        ({"optimizer": "sgd(lr=0.1)"}, ["optimizer differs", "sgd(lr=0.1)", "momentum"]),
        ({"loss": "poly()"}, ["loss differs", "poly", "cross_entropy"]),
        ({"regularize": ()}, ["regularize differs", "[]", "dropout(0.3)"]),
        ({"run_dir": "elsewhere"}, ["has its directory"]),
    ],
    ids=["batch_size", "seed", "optimizer", "loss", "regularize", "run_dir"],
)
def test_what_must_not_change_is_an_error_with_both_values(
    change: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    ravine.train(made(), "sgd(lr=0.1, momentum=0.9)", **SETTINGS, run_dir=tmp_path)
    with pytest.raises(ValueError) as caught:
        ravine.train(made(), resume=tmp_path, **change)
    for word in words:
        assert word in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no run to resume"):
        ravine.train(made(), resume=tmp_path)
    with pytest.raises(ResumeError, match="no such folder"):
        ravine.train(made(), resume=tmp_path / "nowhere")


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    ravine.train(made(), **SETTINGS, run_dir=tmp_path)
    wider = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))
    with pytest.raises(ResumeError, match="does not fit the run"):
        ravine.train(task(model=wider), resume=tmp_path)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    ravine.train(made(), **SETTINGS, run_dir=tmp_path)
    holder = RunDirectory.reopened(tmp_path)
    with pytest.raises(RunDirectoryError, match="another process is writing"):
        ravine.train(made(), resume=tmp_path)
    holder.close()
    ravine.train(made(), resume=tmp_path)


@pytest.mark.parametrize("columns", [1, 3, 7, 13])
@pytest.mark.parametrize("batch_size", [21, 30])
def test_rows_that_lie_across_cache_lines_have_the_same_bits(
    columns: int, batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Matrix products round by how their operands lie in memory: a resumed epoch lies the same.
    def data(rows: int, seed: int) -> Any:
        X = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
        return X, (X.sum(1) > 0).long() + (X.sum(1) > 1)

    def odd() -> Task:
        torch.manual_seed(0)
        model = torch.nn.Linear(columns, 3)
        return task(model=model, train=data(117, 0), valid=data(37, 1))

    own = {"batch_size": batch_size, "regularize": ()}
    whole = ravine.train(odd(), OPTIMIZER, **SETTINGS | own)
    for step in (3, 7):
        run = tmp_path / str(step)
        broken_off(monkeypatch, step, odd(), run_dir=run, checkpoint_every=1, **own)
        check(ravine.train(odd(), resume=run), whole)
