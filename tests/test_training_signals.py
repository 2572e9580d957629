"""Ctrl-C, SIGTERM and a closed terminal at the real command: the step is finished, and the run can
go on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import programs
import pytest
from safetensors.torch import load_file
from training_cases import numbers, same

RAVINE = ["-c", "from ravine.cli import main; main()"]
SLOW = ["train", "slow.py", "--epochs", "9", "--batch-size", "30", "--run-dir", "run"]
PLAIN = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}

TASK = """
import sys
import torch
import ravine
from ravine.tasks import load_task


class Slow(torch.nn.Sequential):
    "Says when it is trained on, and in a step that is given waits for a line."

    calls = 0

    def forward(self, x):
        if self.training:
            Slow.calls += 1
            if Slow.calls == {wait}:
                print("waiting", flush=True)
                sys.stdin.readline()
        return super().forward(x)


def task(seed):
    wine = load_task("wine", seed)
    return ravine.Task(name="slow", model=Slow(wine.model), loss="cross_entropy",
                       train=wine.train, valid=wine.valid)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
]


@contextmanager
def waiting(folder: Path) -> Iterator[programs.Program]:
    """A run that is in the middle of its 7th step."""
    (folder / "slow.py").write_text(TASK.format(wait=7))
    with programs.Program([*RAVINE, *SLOW], cwd=folder, env=PLAIN, stdin=programs.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("waiting"):
                break
        yield process


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return programs.run([*RAVINE, *words], cwd=folder, env=PLAIN)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_finishes_the_step_and_the_printed_command_goes_on(
    name: str, tmp_path: Path
) -> None:
    with waiting(tmp_path) as process:
        process.send_signal(getattr(signal, name))
        out, err = process.communicate("\n")
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.endswith(f"interrupted: by {'Ctrl-C' if name == 'SIGINT' else name}\n")
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert (record["status"], record["facts"]["steps"]) == ("interrupted", 7)
    assert record["message"].endswith(f"after step 7, by {name}")
    (command,) = (line for line in out.splitlines() if line.startswith("resume: "))
    words = shlex.split(command.removeprefix("resume: "))
    assert words == ["ravine", "train", "slow.py", "--resume", "run"]

    (tmp_path / "slow.py").write_text(TASK.format(wait=-1))
    resumed = run(tmp_path, *words[1:])
    assert resumed.returncode == 0, resumed.stderr
    options = ["--epochs", "9", "--batch-size", "30", "--run-dir", "whole"]
    whole = run(tmp_path, "train", "slow.py", *options)
    assert whole.returncode == 0, whole.stderr
    one, other = (
        json.loads((tmp_path / name / "record.json").read_text(encoding="utf-8"))
        for name in ("run", "whole")
    )
    assert numbers(one["history"]) == numbers(other["history"])
    assert one["metrics"] == other["metrics"]
    assert same(
        load_file(tmp_path / "run" / "model.safetensors"),
        load_file(tmp_path / "whole" / "model.safetensors"),
    )


def test_a_second_ctrl_c_ends_at_once_and_what_was_saved_stays(tmp_path: Path) -> None:
    with waiting(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # another one: two of the same kind may become one
        out, err = process.communicate()  # no line: the step is never finished
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "resume: ravine train slow.py --resume run" in out
    (tmp_path / "slow.py").write_text(TASK.format(wait=-1))
    resumed = run(tmp_path, "train", "slow.py", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert (record["status"], len(record["history"])) == ("completed", 9)


def on_closed_terminal(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Close the terminal of a run that is in the middle of a step, as closing its window does."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*words, sys.executable, *RAVINE, *SLOW],
        cwd=folder, env=PLAIN, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"waiting" not in seen:
        seen += os.read(ours, 1 << 16)
    os.close(ours)  # the system sends SIGHUP
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    return process


def test_a_closed_terminal_finishes_the_step_and_saves(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(TASK.format(wait=7))
    assert on_closed_terminal(tmp_path).wait(timeout=240) == 130
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["message"].endswith("after step 7, by SIGHUP")
    (tmp_path / "slow.py").write_text(TASK.format(wait=-1))
    resumed = run(tmp_path, "train", "slow.py", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr


def test_with_nohup_a_run_outlives_its_terminal(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(TASK.format(wait=7))
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]  # as nohup, which takes the output away
    assert on_closed_terminal(tmp_path, *ignoring).wait(timeout=240) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert (record["status"], len(record["history"])) == ("completed", 9)


def test_a_second_hang_up_does_not_end_at_once(tmp_path: Path) -> None:
    with waiting(tmp_path) as process:
        for name in ("SIGTERM", "SIGHUP"):  # as systemd sends them
            process.send_signal(getattr(signal, name))
        _, err = process.communicate("\n")
    assert process.returncode == 130, err
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert "after step 7, by SIG" in record["message"]
