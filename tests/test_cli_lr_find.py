"""``ravine lr-find``: the curve, the answer, the exit codes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ravine.cli import build_app
from ravine.training.config.expressions import check_expression


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")


def command(*words: str) -> Any:
    return CliRunner().invoke(build_app(), ["lr-find", *words], prog_name="ravine")


def test_what_is_found_is_shown_with_the_line_that_uses_it() -> None:
    done = command("wine", "--optimizer", "sgd(momentum=0.9)", "--seeds", "2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wine: sgd(momentum=0.9), cross_entropy(), 2 seeds")
    assert lines[1].index("█") < lines[1].index("▁")
    assert lines[2].strip() == "^"
    assert "1e-07" in lines[3]
    assert any(line.startswith("lr 0.0") for line in lines)
    words = shlex.split(lines[-1].removeprefix("use it: "))
    assert words[:4] == ["ravine", "train", "wine", "--optimizer"]
    assert check_expression("optimizer", words[4], "").startswith("sgd(momentum=0.9, lr=0.0")
    assert list(Path().iterdir()) == []


def test_what_cannot_be_told_exits_1_with_the_reason() -> None:
    done = command("wine", "-o", "sgd", "--stop", "1e-4", "--seeds", "1")
    assert done.exit_code == 1
    assert "can't tell: the loss was still falling at the largest learning rate" in done.stdout
    assert "use it" not in done.stdout
    assert "None" not in done.output


def test_the_record_alone_is_on_stdout() -> None:
    Path("own.py").write_text(
        "import torch, ravine\nprint('words of the task')\ndef task(seed):\n"
        "    X = torch.linspace(-1, 1, 64)[:, None]\n"
        "    return ravine.Task(model=torch.nn.Linear(1, 1), loss='mse', train=(X, 3 * X))\n",
        encoding="utf-8",
    )
    done = command("own.py", "--json", "--seeds", "1")
    record = json.loads(done.stdout)
    assert record["found"] is True
    assert record["lr"] > 0
    assert record["optimizer"] == f"adam(lr={record['lr']!r})"
    assert "words of the task" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wine", "--start", "1", "--stop", "0.1"], "0 < start < stop"),
        (["wnie"], "did you mean 'wine'?"),
        (["wine", "--seeds", "0"], "--seeds"),
        (["wine", "-b", "0"], "neither a whole number"),
    ],
)
def test_wrong_usage_exits_2(words: list[str], message: str) -> None:
    done = command(*words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
