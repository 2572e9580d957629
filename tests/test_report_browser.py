"""The page in a real browser: it draws, without the network, and runs no foreign script."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import fake_run
import pytest
from test_report import HOSTILE
from test_report_steps import rows

from ravine.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed"),
]


def open_page(path: Path, profile: Path) -> tuple[str, str]:
    """Open a file and return the document after its scripts have run, and the console."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


@pytest.mark.parametrize(
    ("record", "drawn"),
    [
        (fake_run.record(20), 4),
        (fake_run.record(1), 4),
        (fake_run.record(12, 7), 4),
        (fake_run.record(20_000), 4),
    ],
    ids=["usual", "one epoch", "diverged", "long"],
)
def test_the_curves_are_drawn(record: dict[str, object], drawn: int, tmp_path: Path) -> None:
    document, console = open_page(
        write_report(record, tmp_path / "report.html"), tmp_path / "profile"
    )
    assert console == ""
    assert f'data-drawn="{drawn}"' in document
    curves = re.findall(r'<g class="trace scatter[^>]*>', document)
    assert len(curves) == drawn + 1  # training and validation loss share a chart


def test_the_charts_by_step_are_drawn_with_their_own_axis(tmp_path: Path) -> None:
    record = fake_run.record(3, steps=rows(40))
    document, console = open_page(
        write_report(record, tmp_path / "report.html"), tmp_path / "profile"
    )
    assert console == ""
    assert 'data-drawn="8"' in document
    assert document.count(">step</text>") == 4
    assert document.count(">epoch</text>") == 4


def test_an_empty_run_opens_without_errors(tmp_path: Path) -> None:
    page = write_report(fake_run.record(0), tmp_path / "report.html")
    document, console = open_page(page, tmp_path / "profile")
    assert console == ""
    assert "No epoch was finished" in document


def test_a_hostile_record_runs_no_script(tmp_path: Path) -> None:
    attack = HOSTILE + "<img src=x onerror=\"document.body.id='pwned'\">"
    attack += "<script>document.body.id='pwned'</script>"
    record = fake_run.record(3, name=attack, message=attack, status=attack)
    for row in record["history"]:
        row |= {attack: 1.0, f"valid/{attack}": 2.0}
    page = write_report(record, tmp_path / "report.html")
    document, console = open_page(page, tmp_path / "profile")
    assert console == ""
    assert 'id="pwned"' not in document
    assert "<img" not in document.replace("&lt;img", "")
    assert 'data-drawn="5"' in document
