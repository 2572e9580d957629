"""What docs/other-loops.md shows runs, and names what there is."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "other-loops.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number, tmp_path, monkeypatch, capsys):
    """Here and not in a process of its own: the three packages take seconds to import."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages, about versions and idle workers
        exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out


def test_there_are_blocks_and_the_files_it_names():
    assert len(BLOCKS) == 3
    links = re.findall(r"\]\((\.\./[^)]+)\)", TEXT)
    assert len(links) == 3
    assert all((PAGE.parent / link).exists() for link in links)


def test_the_versions_are_those_that_are_pinned():
    constraints = (PAGE.parent.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in ("lightning", "transformers", "accelerate", "torch"):
        (version,) = re.findall(rf"\b{name} (\d+\.\d+\.\d+)", TEXT)
        assert f"{name}=={version}" in constraints
