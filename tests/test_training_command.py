"""The real command in a process of its own: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import pytest
from typer.testing import CliRunner

from ravine.cli import build_app
from ravine.regularize import REGULARIZERS
from ravine.tasks import TASKS
from ravine.training import catalog
from ravine.training.choices import BATCH_SIZE, EPOCHS, OPTIMIZER

COMMAND = ["-c", "from ravine.cli import main; main()"]
PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def ravine(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return programs.run([*COMMAND, *words], cwd=cwd, env={**os.environ, **PLAIN})


InProcess = Callable[..., Any]


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """The same command without the seconds that a process takes to start."""
    monkeypatch.chdir(tmp_path)
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(build_app(), list(words), prog_name="ravine")


def test_a_record_as_json_and_a_run_on_disk(tmp_path: Path) -> None:
    done = ravine("train", "wine", "--epochs", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout, parse_constant=pytest.fail)
    assert (record["kind"], record["status"]) == ("train", "completed")
    assert record["config"]["optimizer"] == "adam(lr=0.01)"
    assert len(record["history"]) == 2
    assert "epoch 2/2" in done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "record.json").read_text(encoding="utf-8")) == record
    assert (folder / "model.safetensors").is_file()
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_the_long_example_of_the_first_page(tmp_path: Path) -> None:
    done = ravine(
        "train", "digits", "--optimizer", "rmsprop(lr=warmup(10) >> cosine(90, peak=1e-3), l2=1e-4)",
        "--loss", "cross_entropy(label_smoothing=0.1)", "--regularize", "dropout(0.1)",
        "--regularize", "early_stopping(patience=5)", "--batch-size", "all", "--epochs", "3",
        "--seed", "3", "--run-dir", "runs/try", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["config"] == {
        "task": "digits",
        "optimizer": "rmsprop(lr=warmup(10) >> cosine(90, peak=0.001), l2=0.0001)",
        "loss": "cross_entropy(label_smoothing=0.1)",
        "batch_size": "all",
        "epochs": 3,
        "regularize": ["dropout(0.1)", "early_stopping()"],
        "seed": 3,
        "device": record["config"]["device"],
        "accumulate": 1,
        "precision": "float32",
        "parallel": None,
        "compile": False,
        "checkpoint_activations": False,
        "nonfinite": "stop",
    }
    assert record["facts"]["steps"] == 3
    assert "note: dropout p=0.1 set in" in done.stderr
    assert "note: l2 on 50432 weights; 394 biases and norm weights left out" in done.stderr
    assert (tmp_path / "runs" / "try" / "record.json").is_file()
    again = ravine("train", "digits", "--run-dir", "runs/try", cwd=tmp_path)
    assert again.returncode == 2
    assert "the run directory holds another run" in again.stderr


def test_the_tasks_regularisers_hold_unless_none_are_wanted(in_process: InProcess) -> None:
    config: list[Any] = []
    for words in ([], ["--regularize", "none"], ["--regularize", "l2(0.1)"]):
        done = in_process("train", "digits", "--epochs", "1", "--json", *words)
        assert done.exit_code == 0, done.stderr
        config.append(json.loads(done.stdout)["config"]["regularize"])
    assert config == [["dropout(0.4)"], [], ["l2(0.1)"]]


@pytest.mark.slow
def test_a_diverging_run_exits_1_and_says_what_to_do(tmp_path: Path) -> None:
    done = ravine("train", "digits", "--optimizer", "sgd(lr=1e6)", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "digits: diverged" in done.stdout
    assert "error: the loss became" in done.stderr
    assert "lower lr (try 100000), clip the gradient (clip_norm=1)" in done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["status"] == "diverged"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit"], "did you mean 'digits'?"),
        (["missing.py"], "no such task file"),
        (["wine", "--optimizer", "adm"], "did you mean 'adam'?"),
        (  # no schedules among them
            ["wine", "--optimizer", "nonsense"],
            "error: unknown optimizer 'nonsense'\n  where:    nonsense\n            ^^^^^^^^\n"
            f"  expected: one of {', '.join(sorted(catalog.OPTIMIZERS))}\n",
        ),
        (["wine", "--optimizer", "adam(lr=-1)"], "-1"),
        (["wine", "--loss", "hingee"], "did you mean 'hinge'?"),
        (["wine", "--regularize", "dropot(0.1)"], "did you mean 'dropout'?"),
        (["wine", "--device", "cpuu"], "the device cannot be used"),
        (["wine", "--batch-size", "0"], "neither a whole number"),
        (["wine", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_usage_exits_2(words: list[str], message: str, in_process: InProcess) -> None:
    done = in_process("train", *words)
    assert done.exit_code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert list(Path().iterdir()) == []


def test_a_misspelt_hyperparameter_has_a_caret_under_it(tmp_path: Path) -> None:
    done = ravine("train", "wine", "--optimizer", "adam(lr=1e-3, bets=(0, 0))", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    shown = next(i for i, text in enumerate(lines) if "bets=(0, 0)" in text)
    assert lines[shown + 1].index("^^^^") == lines[shown].index("bets=")
    assert "did you mean 'betas'?" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.slow
def test_ctrl_c_exits_130_and_leaves_a_whole_run(tmp_path: Path) -> None:
    words = ["train", "wine", "--epochs", "1000000", "--run-dir", "run"]
    environment = {**os.environ, **PLAIN}
    with programs.Program([*COMMAND, *words], cwd=tmp_path, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:  # once an epoch is told, the run is under way
            if line.startswith("epoch"):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "wine: interrupted after" in rest
    assert "interrupted" in errors
    assert "Traceback" not in errors
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["status"] == "interrupted"
    rows = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row) for row in rows] == record["history"]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_list_shows_every_name_with_meaning_and_formula(tmp_path: Path) -> None:
    done = ravine("list", cwd=tmp_path)
    assert done.returncode == 0
    blocks = dict(
        re.findall(r"^  ([a-z][\w-]*)(?:\(.*\))?\n((?:    .*\n?)+)", done.stdout, re.MULTILINE)
    )
    known = [catalog.OPTIMIZERS, catalog.LOSSES, catalog.SCHEDULES, REGULARIZERS, TASKS]
    for names in known:
        for name in names:
            assert name in blocks, name
            assert blocks[name].strip()
    for names in known[:3]:
        for name in names:
            assert re.search(r"^      \S.*(=|<-)", blocks[name], re.MULTILINE), (
                f"{name}: no formula"
            )


def test_help_tells_the_defaults_that_hold(tmp_path: Path) -> None:
    text = " ".join(ravine("train", "--help", cwd=tmp_path).stdout.split())
    words = re.sub(r"[│╭╰─╮╯]", " ", text)
    words = " ".join(words.split())
    assert f"else {OPTIMIZER}." in words
    assert f"else {BATCH_SIZE}." in words
    assert f"else {EPOCHS}." in words
    assert "Such as dropout(0.1), or none." in words
