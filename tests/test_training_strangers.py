"""Run directories made by a stranger: what is wrong is refused with words, and no code is run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training_resume import OPTIMIZER, SETTINGS, check, made

import ravine
from ravine.errors import (
    CheckpointError,
    RavineError,
    ResumeError,
)
from ravine.training.checkpoints.folder import _spelled

# A checkpoint from a stranger


class Bomb:
    """Would leave a file behind if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def forge(checkpoint: Path) -> None:
    """Give a checkpoint the manifest that fits its files, as a stranger can."""
    files = {
        name: {
            "bytes": (checkpoint / name).stat().st_size,
            "sha256": hashlib.sha256((checkpoint / name).read_bytes()).hexdigest(),
        }
        for name in ("state.json", "tensors.safetensors")
    }
    (checkpoint / "manifest.json").write_text(_spelled(files), encoding="utf-8")


def pickled(checkpoint: Path, bomb: Path) -> None:
    for name in ("state.json", "tensors.safetensors"):
        (checkpoint / name).write_bytes(pickle.dumps(Bomb(bomb)))
    forge(checkpoint)


def nested(checkpoint: Path, bomb: Path) -> None:
    (checkpoint / "state.json").write_text("[" * 200_000 + "]" * 200_000)
    forge(checkpoint)


def lying(checkpoint: Path, bomb: Path) -> None:
    path = checkpoint / "tensors.safetensors"
    data = path.read_bytes()
    path.write_bytes((1 << 60).to_bytes(8, "little") + data[8:])
    forge(checkpoint)


def elsewhere(checkpoint: Path, bomb: Path) -> None:
    found = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["files"]
    found["../../../../etc/passwd"] = found.pop("state.json")
    (checkpoint / "manifest.json").write_text(_spelled(found), encoding="utf-8")


def long(checkpoint: Path, bomb: Path) -> None:
    (checkpoint / "manifest.json").write_text(" " * 1_000_000)


@pytest.mark.parametrize("harm", [pickled, nested, lying, elsewhere, long])
def test_a_checkpoint_from_a_stranger_runs_nothing_and_is_passed_over(
    harm: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    whole = ravine.train(made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path / "run")
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    for checkpoint in checkpoints:
        harm(checkpoint, tmp_path / "bomb")
    seen: list[Any] = []
    check(ravine.train(made(), resume=tmp_path / "run", listeners=[seen.append]), whole)
    assert sum("is damaged" in note for note in seen[0].notes) == len(checkpoints)
    assert not (tmp_path / "bomb").exists()


def change(path: Path, act: Callable[[Any], Any]) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(act(found) or found), encoding="utf-8")


def without(*names: str) -> Callable[[Any], None]:
    def act(state: Any) -> None:
        for name in names[:-1]:
            state = state[name]
        del state[names[-1]]

    return act


def put(value: Any, *names: str) -> Callable[[Any], None]:
    def act(state: Any) -> None:
        for name in names[:-1]:
            state = state[name]
        state[names[-1]] = value

    return act


@pytest.mark.parametrize(
    "act",
    [
        lambda state: [1, 2],
        without("loop"),
        without("loop", "counters", "step"),
        without("loop", "random", "torch"),
        without("loop", "model", "state", "0.bias"),
        put("ten", "loop", "counters", "step"),
        put(-5, "loop", "counters", "batch"),
        put({"!": "dtype", "of": "load"}, "loop", "optimizer"),
        put({"!": "object", "of": "os.system"}, "loop", "optimizer"),
        put(
            {"!": "array", "of": "loop/model/state/0.bias", "dtype": "|O8", "shape": [8]}, "history"
        ),
        put({"!": "tensor", "of": "../secret"}, "loop", "model", "state", "0.bias"),
        put([1, 2], "history"),
    ],
    ids=lambda _: "",
)
def test_a_forged_state_is_refused_with_words(act: Callable[[Any], Any], tmp_path: Path) -> None:
    ravine.train(made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        change(checkpoint / "state.json", act)
        forge(checkpoint)
    with pytest.raises((CheckpointError, ResumeError)) as caught:
        ravine.train(made(), resume=tmp_path)
    assert "cannot be understood" in str(caught.value) or "the checkpoint does not" in str(
        caught.value
    )


def test_weights_that_are_too_large_are_refused(tmp_path: Path) -> None:
    ravine.train(made(), OPTIMIZER, **SETTINGS, run_dir=tmp_path)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        tensors = load_file(checkpoint / "tensors.safetensors")
        tensors["loop/model/state/0.weight"] = torch.zeros(1000, 1000)
        save_file(tensors, checkpoint / "tensors.safetensors")
        forge(checkpoint)
    with pytest.raises(ResumeError, match="does not fit the run"):
        ravine.train(made(), resume=tmp_path)


# A configuration from a stranger


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without("config", "loss"), "KeyError: 'loss'"),
        (without("config"), "KeyError: 'config'"),
        (put([1], "config"), "its config is no object"),
        (put(["adam"], "config", "optimizer"), "optimizer is ['adam']"),
        (put("__import__('os').mkdir('bomb')", "config", "optimizer"), ""),
        (put(10**9, "config", "regularize"), "regularize is 1000000000"),
        (put(-1, "config", "seed"), "seed"),
    ],
    ids=["no loss", "no config", "a list", "no text", "code", "a number", "seed"],
)
def test_a_forged_configuration_is_refused(
    harm: Callable[[Any], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ravine.train("wine", epochs=1, run_dir=tmp_path / "run")
    change(tmp_path / "run" / "config.json", harm)
    with pytest.raises(RavineError) as caught:
        ravine.train(resume=tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("where", ["run/task.py", "task.py", "../task.py"])
def test_a_file_that_a_configuration_names_is_not_run(where: str, tmp_path: Path) -> None:
    ravine.train("wine", epochs=1, run_dir=tmp_path / "a" / "run")
    file = tmp_path / "a" / where
    file.write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'bomb')!r}).mkdir()")
    change(tmp_path / "a" / "run" / "config.json", put(str(file), "config", "task"))
    with pytest.raises(ResumeError, match="run only if you name it"):
        ravine.train(resume=tmp_path / "a" / "run")
    assert not (tmp_path / "bomb").exists()
