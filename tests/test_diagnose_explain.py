"""Every finding has a code, a page, and a command that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import ravine
from ravine.cli import build_app
from ravine.diagnose import CODES, explain
from ravine.errors import UnknownNameError

HEADINGS = ["How it is measured", "Remedies", "When it is a false alarm", "Sources"]


@pytest.mark.parametrize("name", CODES)
def test_every_finding_has_a_whole_page(name: str) -> None:
    page = explain(name)
    assert page == explain(CODES[name]) == explain(CODES[name].lower())
    assert page.splitlines()[0] == f"# {CODES[name]}: {name}"
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == HEADINGS
    for part in page.split("\n\n")[1::2]:
        assert len(part) > 8


def test_no_page_is_left_over() -> None:
    folder = Path(ravine.__file__).parent / "diagnose" / "pages"
    assert {path.stem for path in folder.glob("*.md")} == set(CODES.values())
    assert len(set(CODES.values())) == len(CODES)


def test_an_unknown_code_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'LR-HIGH'"):
        explain("LR-HIHG")


def test_the_command_explains() -> None:
    shown = CliRunner().invoke(build_app(), ["explain", "lr-too-high"])
    assert (shown.exit_code, shown.stdout) == (0, explain("LR-HIGH"))
    listed = CliRunner().invoke(build_app(), ["explain"])
    assert [line.split() for line in listed.stdout.splitlines()] == [
        [c, n] for n, c in CODES.items()
    ]
    assert CliRunner().invoke(build_app(), ["explain", "X"]).exit_code == 2
    assert CliRunner().invoke(build_app(), ["diagnose", "wine", "--select", "X"]).exit_code == 2
