"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_without_a_word_of_complaint(path: Path, tmp_path: Path) -> None:
    done = run("-W", "error::UserWarning", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_rule_of_ones_own_descends_in_a_compiled_pass(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "my_rule.py"), cwd=tmp_path)
    first, second, third = done.stdout.splitlines()
    assert float(first.removeprefix("loss ")) < 1
    assert second.startswith("lion(lr=0.01")
    assert "cpu kernel of clip_by_norm + coupled_decay + lion" in third


@pytest.mark.slow
def test_the_task_of_ones_own_trains_from_the_command_line(tmp_path: Path) -> None:
    done = run(
        "-c", "from ravine.cli import main; main()",
        "train", str(EXAMPLES / "my_task.py"), "--epochs", "40", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["name"] == "spirals"
    assert record["metrics"]["valid/accuracy"] > 0.9
