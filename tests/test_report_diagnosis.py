"""The page of a diagnosis, from plain JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_report_browser import CHROMIUM, open_page

from ravine.diagnose import Diagnosis, Finding, Trial
from ravine.diagnose.treated import Remedy, Treated
from ravine.report import write_report
from ravine.report.strict_json import to_strict_json

TRIAL = Trial("lower <it>", (0.9, 0.8), (0.1, float("nan")), "1 - accuracy", True, (0.9, 0.9))
FINDING = Finding(
    "lr-too-high",
    "critical",
    "high",
    "the loss is <b>large</b>",
    where="layer & more",
    evidence={"lr": 3.0},
    ruled_out=("the data",),
    treatments=(TRIAL,),
)
CHART = {
    "name": "loss",
    "title": "Training loss",
    "log": True,
    "axis": "epoch",
    "summary": "as it is: ends at 2",
    "curves": [{"name": "as <it> is", "part": "train", "x": [1, 2], "y": [3.0, 2.0]}],
}


def page(tmp_path: Path, **changes: Any) -> str:
    made = Diagnosis("<script>task", **changes)
    plain = json.loads(to_strict_json(made.to_json()))  # as a file would hold it
    return write_report(plain, tmp_path / "page.html").read_text(encoding="utf-8")


def test_findings_trials_and_charts_are_on_the_page(tmp_path: Path) -> None:
    text = page(tmp_path, findings=[FINDING], verdict="found", drawings=[CHART], seconds=3.0)
    head = text.split('<script type="application/json"')[0]
    for words in (
        "LR-HIGH",
        "lr-too-high",
        "1 finding",
        "helps",
        "Ruled out: the data.",
        "0.9, 0.8",
    ):
        assert words in head, words
    assert "the loss is &lt;b&gt;large&lt;/b&gt;" in head
    assert "&lt;script&gt;task" in head
    assert "<b>large" not in text
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    (drawn,) = json.loads(found[1])
    assert drawn["curves"][0]["y"] == [3.0, 2.0]
    assert drawn["log"] is True


def test_a_healthy_diagnosis_says_so_and_what_was_looked_for(tmp_path: Path) -> None:
    text = page(tmp_path, ruled_out=("lr-too-high",))
    assert "no problem found" in text
    assert "<li>lr-too-high</li>" in text
    assert "Plotly" not in text.split("<script>")[0]


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    text = page(tmp_path, findings=[FINDING], drawings=[CHART], verdict="found")
    outside = text.split("<script>")[0]
    assert "default-src 'none'" in outside
    assert not re.search(r'(src|href)="(?!data:)', outside)


def test_what_to_change_and_notes_and_drawings_are_on_the_page(tmp_path: Path) -> None:
    by_hand = Remedy("HEAD-SOFTMAX", "double-softmax", "layer <3>", TRIAL, (), True)
    treated = Treated(
        "mine.py", {"optimizer": "sgd(lr=0.1)"}, (by_hand,), ("INIT-SCALE, worse",),
        (0.9,), (0.1,), "1 - accuracy",
    )  # fmt: skip
    flow = {"kind": "flow", "title": "Gradient by layer", "summary": "it <i>fell", "caption": "see",
            "layers": ["<a>", "b"], "series": [{"name": "start", "values": [1e-3, 1.0]}]}  # fmt: skip
    text = page(
        tmp_path, findings=[FINDING], verdict="found", drawings=[CHART, flow],
        treated=treated, notes=("the run was made in bfloat16",),
    )  # fmt: skip
    head = text.split('<script type="application/json"')[0]
    for words in (
        "the run was made in bfloat16",
        "Replayed together: 1 - accuracy 0.9 without, 0.1 with it.",
        "ravine train mine.py --config FILE",
        "sgd(lr=0.1)",
        "layer &lt;3&gt;",
        "INIT-SCALE, worse",
        '<svg class="drawing"',
        "it &lt;i&gt;fell",
        "&lt;a&gt;",
    ):
        assert words in head, words
    assert "<i>fell" not in text and "<a>" not in text
    assert head.count('class="plot"') == 1  # the curves are Plotly's, the drawing needs no script


def test_without_curves_no_script_draws(tmp_path: Path) -> None:
    units = {"kind": "units", "title": "Dead", "columns": ["dead"], "rows": [{"shares": [1.0]}]}
    text = page(tmp_path, findings=[FINDING], verdict="found", drawings=[units])
    assert "Plotly" not in text.split("<script>")[0] and len(text) < 100_000
    assert '<svg class="drawing"' in text


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")
def test_a_browser_draws_it_all_without_the_network_or_an_error(tmp_path: Path) -> None:
    falls = {"kind": "falls", "title": "</svg><script>alert(1)</script>", "axis": "fall",
             "bars": [{"name": "gradient", "value": 1.0}]}  # fmt: skip
    page(tmp_path, findings=[FINDING], verdict="found", drawings=[CHART, falls])
    document, console = open_page(tmp_path / "page.html", tmp_path / "profile")
    assert console == ""
    assert 'data-drawn="1"' in document  # the curves
    drawn = document.split('<svg class="drawing"')[1].split("</svg>")[0]
    assert "<rect" in drawn and "alert(1)&lt;/script&gt;" in drawn
