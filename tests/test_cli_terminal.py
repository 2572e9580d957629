"""The real command on a real terminal, and with readers that leave, sleep or have no room."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("terminals and pipes of POSIX", allow_module_level=True)

from programs import Program, run
from pseudo_terminal import Screen, on_terminal

COMMAND = ["-c", "from ravine.cli import main; main()"]
FAKE = str(Path(__file__).with_name("fake_run.py"))
ENVIRONMENT = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # what is still in a buffer is written at the end


def saved(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_what_a_person_sees(width: int, tmp_path: Path) -> None:
    code, text = on_terminal(
        [*COMMAND, "train", "wine", "--epochs", "40", "--run-dir", "run"], tmp_path, width
    )
    assert code == 0, text
    drawn = text[text.index("\x1b[?25l") : text.index("\x1b[?25h")]
    screen = Screen(width)
    screen.feed(drawn)
    assert screen.widest <= width
    first, second, third = (line.rstrip() for line in screen.lines[:3])
    assert re.match(r"epoch 40/40 ━+ .*\d:\d\d spent$", first)
    assert second.startswith("loss ")
    assert third.startswith("epoch 40: train loss")
    assert not any(line.strip() for line in screen.lines[3:])  # every frame over the one before
    assert "wine: " in text
    assert saved(tmp_path / "run")["status"] == "completed"


def test_the_width_of_columns_counts(tmp_path: Path) -> None:
    code, text = on_terminal(
        [FAKE, "train", "digits", "--epochs", "3"], tmp_path, 80, COLUMNS="50", LINES="40"
    )
    assert code == 0
    screen = Screen(80)
    screen.feed(text[text.index("\x1b[?25l") : text.index("\x1b[?25h")])
    assert screen.widest <= 50


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_showing_and_not_the_run(tmp_path: Path) -> None:
    words = [*COMMAND, "train", "wine", "--epochs", "200", "--run-dir", "run"]
    with Program(words, cwd=tmp_path, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("wine: ")
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait() == 0
    assert errors == ""
    record = saved(tmp_path / "run")
    assert record["status"] == "completed"
    assert len(record["history"]) == 200  # type: ignore[arg-type]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_a_reader_that_sleeps_does_not_hold_up_the_training(tmp_path: Path) -> None:
    """A pipe of one page that nobody reads until the run is written."""
    import fcntl

    ours, theirs = os.pipe()
    size = fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    os.write(theirs, b"x" * (size - 512))
    task = tmp_path / "many.py"
    task.write_text(
        "import ravine.tasks\ndef task(seed):\n    return ravine.tasks.load_task('wine', seed)\n",
        encoding="utf-8",
    )
    words = [*COMMAND, "train", str(task), "--epochs", "60", "--run-dir", "run"]
    with Program(words, cwd=tmp_path, env=ENVIRONMENT, stdout=theirs) as process:
        os.close(theirs)
        _wait_for(tmp_path / "run" / "history.jsonl", lines=60, process=process)
        written = b""
        while part := os.read(ours, 1 << 16):
            written += part
        os.close(ours)
        assert process.wait() == 0
    assert b"lines left out while nobody read" in written
    assert b"epoch 60/60" in written
    assert b"completed after 60 epochs" in written


def _wait_for(path: Path, *, lines: int, process: Program) -> None:
    """Return when a file has so many lines; the test's own time limit ends the waiting."""
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
    raise AssertionError(process.communicate()[1])


def test_a_task_that_prints_does_not_fail_for_a_reader_that_left(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    words = [FAKE, "train", "digits", "--run-dir", "run"]
    done = run(words, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}, stdout=theirs)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_behind_the_log_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        words = [*COMMAND, "train", "wine", "--epochs", "5", "--run-dir", "run"]
        done = run(words, cwd=tmp_path, env=ENVIRONMENT, stdout=full)
    assert done.returncode == 0
    assert done.stderr.startswith("ravine: the run is no longer shown ([Errno 28]")
    assert "Traceback" not in done.stderr
    assert saved(tmp_path / "run")["status"] == "completed"


def test_a_process_that_is_not_listened_to_exits_with_its_own_code(tmp_path: Path) -> None:
    """A run that diverged has exit code 1 although its reader had left."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = run([FAKE, "train", "diverge"], cwd=tmp_path, env=ENVIRONMENT, stdout=theirs)
    os.close(theirs)
    assert done.returncode == 1
    assert "the loss is NaN" in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_gives_it_back(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from ravine.cli import run\n"
        "import ravine.training\n"
        "def stop(state):\n"
        "    if state.step == 50: os.kill(os.getpid(), signal.SIGINT)\n"
        "own = ravine.training.train\n"
        "ravine.training.train = lambda *a, **k: own(*a, on_step=stop, **k)\n"
        "from ravine.cli import main\n"
        "main(['train', 'wine', '--epochs', '100000', '--run-dir', 'run'])\n"
    )
    status, text = on_terminal(["-c", code], tmp_path, 80)
    assert status == 130, text
    assert "\x1b[?25h" in text
    assert "interrupted after" in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "Traceback" not in text
