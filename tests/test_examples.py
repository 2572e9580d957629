"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import programs
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return programs.run(words, cwd=cwd, env={**os.environ, "NO_COLOR": "1"})


IN_OTHER_LOOPS = {
    "accelerate_loop.py": (r"loss (\S+)", 1.5, 0.2),
    "hf_trainer.py": (r"'loss': '(\S+)'", 4.5, 3.2),
    "lightning_module.py": (r"accuracy (\S+)", 0.8, 0.93),
}
"""What each prints, about where that begins, and where it ends."""
# Lightning 2.6 asks torch 2.13 for what will change.
OF_LIGHTNING = "ignore::FutureWarning:lightning.pytorch.utilities._pytree"
ALONE = [path for path in sorted(EXAMPLES.glob("*.py")) if path.name not in IN_OTHER_LOOPS]


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.name)
def test_an_example_runs_without_a_word_of_complaint(path: Path, tmp_path: Path) -> None:
    complained_of_nothing(run("-W", "error::UserWarning", str(path), cwd=tmp_path))


def complained_of_nothing(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_OTHER_LOOPS)
def test_an_example_in_anothers_loop_learns(name: str, tmp_path: Path) -> None:
    words = ("-W", "error::UserWarning", "-W", OF_LIGHTNING, str(EXAMPLES / name))
    shown = complained_of_nothing(run(*words, cwd=tmp_path))
    pattern, begin, end = IN_OTHER_LOOPS[name]
    numbers = [float(number) for number in re.findall(pattern, shown)]
    rises = end > begin
    assert (numbers[0] > begin) == rises
    assert (numbers[-1] > end) == rises
    assert "cpu kernel of clip_by_norm + decoupled_decay + adam" in shown


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
