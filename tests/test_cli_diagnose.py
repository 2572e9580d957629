"""``ravine diagnose``: what is printed is what the JSON says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ravine.cli import build_app
from ravine.cli.diagnose import print_applied, print_diagnosis
from ravine.diagnose import Diagnosis, Finding, Trial
from ravine.diagnose.treated import Remedy, Treated

TRIAL = Trial("lower the rate", (0.9, 0.8), (0.1, 0.2), "1 - accuracy", True,
              (0.7, 0.6), "take the rows in another order")  # fmt: skip
FINDING = Finding("lr-too-high", "critical", "high", "the loss is large", treatments=(TRIAL,))
FLOW = {"kind": "flow", "title": "Gradient by layer", "summary": "At the start 1e-07."}
HAND = Remedy("HEAD-SOFTMAX", "double-softmax", "layer 3", TRIAL, (), True)


def command(*words: str) -> Any:
    return CliRunner().invoke(build_app(), list(words), prog_name="ravine")


def test_controls_notes_and_drawings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = Diagnosis("mine", [FINDING], verdict="found", drawings=[FLOW], notes=("in float16",))
    print_diagnosis(found.to_json())
    text = capsys.readouterr().out
    assert "note: in float16" in text
    assert (
        "lower the rate: helps (1 - accuracy 0.9 to 0.1, 0.8 to 0.2; control, take the rows in "
        "another order: 0.7, 0.6)"
    ) in text
    assert "Gradient by layer: At the start 1e-07." in text


def test_what_was_applied_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    treated = Treated("mine.py", {"optimizer": "sgd(lr=0.1)", "epochs": 9}, (HAND,), ("worse",))
    plain = Diagnosis("mine", treated=treated).to_json()["treated"]
    print_applied(plain, Path("new.toml"))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "new.toml: optimizer, epochs. ravine train mine.py --config new.toml",
        "by hand, for HEAD-SOFTMAX: lower the rate (seen in layer 3)",
        "left out: worse",
    ]
    print_applied(None, Path("new.toml"), error=True)
    assert capsys.readouterr().err == (
        "nothing written to new.toml: no remedy of a root finding helped\n"
    )


@pytest.mark.slow
def test_a_run_directory_is_diagnosed_and_its_page_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "digits", "-e", "2", "-o", "sgd(lr=1e-4)", "--run-dir", "try", "--json")
    assert command(*words).exit_code == 0
    result = command("diagnose", "try", "--budget", "40", "--json", "--report", "page.html")
    assert result.exit_code == 1, result.output
    plain = json.loads(result.stdout)
    assert plain["findings"][0]["name"] in ("lr-too-low", "too-few-epochs")
    assert plain["measured"]["status of the run"] == "completed"
    assert "What to change" in Path("page.html").read_text(encoding="utf-8")


def test_what_is_no_run_is_an_error_of_usage(tmp_path: Path) -> None:
    result = command("diagnose", str(tmp_path))
    assert result.exit_code == 2
    assert "there is no run to diagnose" in result.output and str(tmp_path) in result.output
    assert command("diagnose").exit_code == 2
