"""Charts by step on the page of a run whose epochs are few."""

from __future__ import annotations

import json
import math
from typing import Any

import fake_run
import pytest
from test_report import Page

from ravine.report import render_report
from ravine.report.curves import POINTS
from ravine.report.steps import FEW_EPOCHS, step_charts


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "step": 10 * k,
            "loss": 2.0 / k,
            "smoothed_loss": 2.5 / k,
            "lr": 1e-3,
            "gradient_norm": 1.0 + 1 / k,
            "samples_per_second": 1000.0,
        }
        | changes
        for k in range(1, count + 1)
    ]


def test_a_short_run_has_four_more_charts() -> None:
    made = Page(render_report(fake_run.record(3, steps=rows(40))))
    drawn = json.loads(made.scripts[0])
    assert [chart["axis"] for chart in drawn] == ["epoch"] * 4 + ["step"] * 4
    loss = drawn[4]
    assert [curve["name"] for curve in loss["curves"]] == ["single steps", "smoothed"]
    assert loss["curves"][0]["x"] == [10 * k for k in range(1, 41)]
    assert loss["curves"][0]["y"] == [2.0 / k for k in range(1, 41)]
    assert "loss by step" in made.text
    assert "2.5 → 0.0625 smoothed over 100 steps" in made.text


def test_a_run_that_was_ended_in_its_first_epoch_has_curves() -> None:
    made = Page(render_report(fake_run.record(0, steps=rows(40), metrics={})))
    assert len(json.loads(made.scripts[0])) == 4
    assert "nothing to draw" not in made.text


@pytest.mark.parametrize(
    ("count", "epochs", "charts"),
    [(9, 3, 0), (10, 3, 4), (25, 26, 0), (500, FEW_EPOCHS, 4), (500, FEW_EPOCHS + 1, 0)],
)
def test_they_are_drawn_where_epochs_are_few_and_rows_enough(
    count: int, epochs: int, charts: int
) -> None:
    assert len(step_charts(rows(count), epochs)) == charts


def test_what_has_no_number_is_left_out() -> None:
    charts = step_charts(rows(20, gradient_norm=None, samples_per_second="NaN", lr=math.inf), 1)
    assert [chart.name for chart in charts] == ["loss"]
    assert step_charts([{"loss": 1.0}] * 20, 1) == []
    gaps = rows(20)
    gaps[7]["loss"] = math.nan
    assert step_charts(gaps, 1)[0].curves[0]["y"][7] is None


def test_a_week_of_rows_is_thinned() -> None:
    chart = step_charts(rows(66_000), 2)[0]
    assert len(chart.curves[0]["x"]) <= POINTS + 2
    assert chart.log


def test_rows_of_a_stranger_break_nothing() -> None:
    steps: Any = [1, "x", None, {"step": "no"}, *rows(20, loss="text")]
    made = Page(render_report(fake_run.record(2, steps=steps)))
    assert len(json.loads(made.scripts[0])) == 8
