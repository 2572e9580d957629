"""The command: help, exit codes, what goes to stdout and what to stderr, the live line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_run
import programs
import pytest
from typer.testing import CliRunner

from ravine.cli import build_app


def run(*words: str) -> Any:
    return CliRunner().invoke(build_app(train=fake_run.train), list(words), prog_name="ravine")


def process(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with the fake training behind it."""
    return programs.run([fake_run.__file__, *words], cwd=cwd, env={**os.environ, **environment})


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Help and usage


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["list", "-h"]])
def test_help_begins_with_an_example(words: list[str]) -> None:
    result = run(*words)
    first, second = result.stdout.splitlines()[:2]
    assert result.exit_code == 0
    assert first == "Example:"
    assert second.startswith("  ravine ")


def test_help_shows_every_option() -> None:
    text = run("train", "--help").stdout
    for option in ("optimizer", "loss", "regularize", "batch-size", "epochs", "seed", "device"):
        assert f"--{option}" in text
    assert "--run-dir" in text
    assert "--json" in text


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"ravine {version('ravine')}\n"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_no_array_library(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from ravine.cli import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'llvmlite', 'pandas', 'sklearn', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "Missing argument 'TASK'"),
        (["train", "digits", "--batch-size", "0"], "neither a whole number"),
        (["train", "digits", "--batch-size", "some"], "'some' is neither"),
        (["train", "digits", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["train", "digits", "--sed", "3"], "No such option"),
        (["trian", "digits"], "Did you mean 'train'?"),
        (["train", "missing"], "did you mean 'digits'?"),
        (["list", "losess"], "did you mean 'losses'?"),
    ],
)
def test_wrong_usage_exits_2_with_words_on_stderr(words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(re.sub(r"[│╭╰─╮╯]", " ", result.stderr).split())
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_wrong_usage_leaves_no_run_directory() -> None:
    run("train", "missing")
    assert not Path("runs").exists()


# A run


def test_a_run_is_shown_and_says_where_it_was_written() -> None:
    result = run("train", "digits", "--epochs", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any(line.startswith("epoch 2/2  train loss ") for line in lines)
    (directory,) = Path("runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", directory.name)
    assert f"run   {directory}" in lines
    assert f"page  {directory / 'report.html'}" in lines
    assert any(re.match(r" *accuracy +- +99\.39 %", line) for line in lines)


def test_two_runs_within_a_second_get_directories_of_their_own() -> None:
    for _ in range(3):
        assert run("train", "digits").exit_code == 0
    assert len(list(Path("runs").iterdir())) == 3


def test_a_task_file_names_the_run_directory_by_its_stem() -> None:
    assert run("train", "some where/my task.py").exit_code == 0
    assert next(Path("runs").iterdir()).name.startswith("my-task-2")


def test_every_option_reaches_training() -> None:
    words = (
        'train digits --optimizer "adam(lr=warmup(5) >> cosine(9, peak=1e-3))"'
        " --loss huber(delta=2) --regularize dropout(0.1)"
        " --regularize early_stopping(patience=5) --batch-size all"
        " --epochs 4 --seed 3 --device cpu --run-dir there"
    )
    assert run(*shlex.split(words)).exit_code == 0
    assert json.loads(Path("there/config.json").read_text(encoding="utf-8")) == {
        "task": "digits",
        "optimizer": "adam(lr=warmup(5) >> cosine(9, peak=1e-3))",
        "loss": "huber(delta=2)",
        "batch_size": "all",
        "epochs": 4,
        "regularize": ["dropout(0.1)", "early_stopping(patience=5)"],
        "seed": 3,
        "device": "cpu",
    }
    assert not Path("runs").exists()


def test_options_not_given_are_left_to_training() -> None:
    run("train", "digits", "--run-dir", "there")
    config = json.loads(Path("there/config.json").read_text(encoding="utf-8"))
    assert [config[k] for k in ("optimizer", "loss", "batch_size")] == [None, None, None]
    assert (config["seed"], config["device"], config["regularize"]) == (0, "auto", [])


def test_json_alone_is_on_stdout() -> None:
    result = run("train", "digits", "--json", "--epochs", "2")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "completed"
    assert result.stdout.count("\n") == 1
    assert "epoch 2/2" in result.stderr
    assert "words of the user's own task" in result.stderr


def test_a_diverged_run_exits_1_and_still_shows_what_it_reached() -> None:
    result = run("train", "diverge")
    assert result.exit_code == 1
    assert "diverge: diverged after 3 epochs" in result.stdout
    assert "error: the loss is NaN" in result.stderr
    assert "lower the learning rate" in result.stderr
    assert "Traceback" not in result.output


def test_a_diverged_run_prints_json_that_any_reader_takes() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    result = run("train", "diverge", "--json")
    assert result.exit_code == 1
    last = json.loads(result.stdout, parse_constant=refuse)["history"][-1]
    assert (last["train/loss"], last["valid/loss"]) == ("NaN", "Infinity")
    assert last["gradient_norm"] == "-Infinity"


def test_interrupting_exits_130_and_keeps_the_run() -> None:
    result = run("train", "interrupt")
    assert result.exit_code == 130
    assert "interrupted after 3 epochs" in result.stdout
    assert "run   runs" in result.stdout


def test_a_bug_is_not_hidden() -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    result = CliRunner().invoke(build_app(train=broken), ["train", "digits"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_process_in_a_pipe_writes_plain_lines(tmp_path: Path) -> None:
    done = process("train", "digits", "--epochs", "2", cwd=tmp_path, FORCE_COLOR="")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\nepoch ") == 2
    assert done.stderr == ""


def test_a_process_exits_with_the_codes_that_are_promised(tmp_path: Path) -> None:
    codes = {"digits": 0, "diverge": 1, "missing": 2, "interrupt": 130}
    assert {task: process("train", task, cwd=tmp_path).returncode for task in codes} == codes


def test_a_process_pipes_its_record(tmp_path: Path) -> None:
    done = process("train", "digits", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["config"]["task"] == "digits"
