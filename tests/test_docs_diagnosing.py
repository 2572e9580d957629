"""The page on diagnosing lists every finding, and its figures are those that were measured."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from ravine.diagnose import CODES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "diagnosing.md").read_text(encoding="utf-8")
RESULT = ROOT / "benchmarks" / "results" / "diagnosis.json"


@pytest.fixture
def benchmark(monkeypatch):
    folder = ROOT / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("of_diagnosis", folder / "diagnosis.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("measure", None)


def test_every_finding_is_listed_with_its_page():
    listed = dict(re.findall(r"\* \[([A-Z-]+)\]\(\.\./src/\S+/\1\.md\) (\S+)", PAGE))
    assert {name: code for code, name in listed.items()} == CODES


def test_the_figures_are_those_of_the_result(benchmark):
    assert benchmark.published(PAGE, json.loads(RESULT.read_text())) == PAGE


def test_a_program_that_was_missed_shows_in_the_table(benchmark):
    run = {"found": ["plateau"], "repaired": False, "seconds": 2.0}
    calm = {"found": [], "repaired": False, "seconds": 1.0}
    table = {
        "faulty": {"a": {"roots": ["lr-too-low"], "0": run, "1": {**run, "found": ["lr-too-low"]}}},
        "healthy": {"b": {"roots": [], "0": calm}},
    }
    told = benchmark.summary(table)
    assert (told["root first"], told["root in first three"]) == (0.5, 0.5)
    assert (told["healthy runs with a finding"], told["most seconds"]) == (0, 2.0)
    assert "| a | lr-too-low | plateau, lr-too-low | 0 of 2 |" in benchmark.markdown(table)
    assert "| b | (healthy) | none |" in benchmark.markdown(table)
