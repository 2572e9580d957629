"""What the README shows runs, in a process of its own and an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import programs
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("ravine ")
]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return programs.run(arguments, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_runs(number, tmp_path):
    (tmp_path / "block.py").write_text(BLOCKS[number], encoding="utf-8")
    done = run(["-W", "error::UserWarning", "block.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_are_blocks_and_commands():
    assert len(BLOCKS) == 4
    assert len(COMMANDS) == 9


@pytest.mark.slow
def test_the_commands_run_from_first_to_last(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command in COMMANDS:  # in one folder: a run that one of them made is resumed by another
        _, *arguments = shlex.split(command)
        done = run(["-c", "from ravine.cli import main; main()", *arguments], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout, command


def test_ci_runs_the_line_that_the_readme_shows():
    line = re.search(r"<!-- test -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert line is not None
    assert "\n" not in line[1]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = subprocess.run(
        ["bash", "-c", next(part for part in script.splitlines() if part.startswith("line="))
         + '; printf %s "$line"'],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == line[1]
