"""Hard histories on the page: none, one row, very many, values that are not finite."""

from __future__ import annotations

import json
import math
from typing import Any

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import Page, page

from ravine.report import render_report, to_strict_json
from ravine.report.curves import POINTS, best_row, charts
from ravine.report.tables import ROWS, headline
from ravine.report.thinning import thin


def test_an_empty_history_is_a_page_without_plotly() -> None:
    made = page(0, status="interrupted", message="Ctrl-C in epoch 1", metrics={})
    assert "No epoch was finished, so there is nothing to draw." in made.text
    assert "The run ended before anything was measured." in made.text
    assert "Ctrl-C in epoch 1" in made.text
    assert len(made.scripts) == 2


def test_a_record_with_nothing_but_its_kind_is_a_page() -> None:
    assert "No epoch was finished" in Page(render_report({"kind": "train"})).text


def test_one_epoch_is_drawn_as_points() -> None:
    drawn = json.loads(page(1).scripts[0])
    assert all(curve["dots"] for chart in drawn for curve in chart["curves"])
    assert [chart["log"] for chart in drawn] == [False] * 4


@pytest.mark.parametrize("as_text", [False, True], ids=["floats", "strings"])
def test_values_that_are_not_finite_are_gaps_and_are_said(as_text: bool) -> None:
    record = fake_run.record(12, 7, status="diverged", message="the loss is NaN")
    if as_text:
        record = json.loads(to_strict_json(record))
    made = Page(render_report(record))
    loss, accuracy, lr, norm = json.loads(made.scripts[0])
    assert loss["curves"][0]["y"][6:] == [None] * 6
    assert (loss["broken"], norm["broken"]) == (7, 7)
    assert (accuracy["broken"], lr["broken"]) == (None, None)
    assert "no number in 6 of 12 epochs" in made.text
    assert "not finite from epoch 7" in made.text
    assert "NaN" in made.text
    assert loss["best"] == {"epoch": 6, "text": "best: 6"}


def test_a_history_without_one_number_has_no_charts() -> None:
    assert charts([{"epoch": 1, "train/loss": math.nan, "note": "text"}], None) == []


def test_validation_at_some_epochs_only_is_not_called_broken() -> None:
    rows = [{"epoch": e} | ({"valid/loss": 1.0 / e} if e % 2 else {}) for e in range(1, 8)]
    (chart,) = charts(rows, None)
    assert chart.broken is None
    assert chart.curves[0]["dots"]


@pytest.mark.parametrize(
    ("values", "name", "log"),
    [
        ([10.0, 0.1], "train/loss", True),
        ([1.0, 0.5], "train/loss", False),
        ([10.0, 0.0], "train/loss", False),
        ([10.0, -0.1], "train/loss", False),
        ([0.01, 0.99], "valid/accuracy", False),
        ([1e-3, 1e-6], "lr", True),
    ],
)
def test_the_axis_is_logarithmic_where_it_helps(values: list[float], name: str, log: bool) -> None:
    (chart,) = charts([{name: value} for value in values], None)
    assert chart.log is log


def test_a_long_history_is_thinned_and_says_so() -> None:
    record = fake_run.record(100_000)
    record["history"][54_321]["train/loss"] = 77.0
    made = Page(render_report(record))
    loss = json.loads(made.scripts[0])[0]["curves"][0]
    assert len(loss["x"]) <= POINTS + 3
    assert loss["y"][loss["x"].index(54_322)] == 77.0
    assert "This run has 100,000 epochs" in made.text
    assert len(made.all("tr")) <= ROWS + 10
    assert "of 100,000 epochs are shown" in made.text


@given(
    st.lists(st.floats(allow_nan=True, width=16), max_size=300),
    st.integers(8, 100),
    st.sets(st.integers(0, 300), max_size=3),
)
def test_thinning_keeps_what_matters(values: list[float], limit: int, keep: set[int]) -> None:
    chosen = thin(values, limit, keep=keep)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= limit + len(keep) + 2
    assert {k for k in keep if k < len(values)} <= set(chosen)
    if values:
        assert {0, len(values) - 1} <= set(chosen)
    finite = [v for v in values if math.isfinite(v)]
    kept = [values[i] for i in chosen if math.isfinite(values[i])]
    assert (min(finite, default=0), max(finite, default=0)) == (
        min(kept, default=0),
        max(kept, default=0),
    )
    assert len(kept) == len(chosen) or len(finite) < len(values)
    if len(finite) < len(values):
        assert len(kept) < len(chosen)


# The best epoch and the headline


def test_the_best_epoch_is_that_of_the_lowest_validation_loss() -> None:
    rows = [{"epoch": 5, "valid/loss": 2.0}, {"epoch": 6, "valid/loss": math.nan}]
    rows += [{"epoch": 7, "valid/loss": 1.0, "train/loss": 9.0}, {"epoch": 8, "valid/loss": 1.5}]
    best = best_row(rows, {})
    assert best is not None
    assert (best.position, best.epoch, best.why) == (2, 7, "lowest validation loss")


def test_the_record_decides_on_the_best_epoch_when_it_names_one() -> None:
    best = best_row(fake_run.history(5), {"best_epoch": 3})
    assert best is not None
    assert (best.position, best.why) == (2, "the weights of this epoch were kept")


def test_without_any_loss_there_is_no_best_epoch() -> None:
    assert best_row([{"epoch": 1, "lr": 0.1}], {}) is None
    assert best_row([], {}) is None


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"train/loss": 1.0, "valid/loss": 2.0}, ("2", "validation loss")),
        ({"valid/loss": 2.0, "valid/accuracy": 0.5}, ("50.00 %", "validation accuracy")),
        ({"train/loss": math.nan}, ("NaN", "training loss")),
        ({"train/loss": "Infinity"}, ("inf", "training loss")),
        ({}, None),
    ],
)
def test_headline(metrics: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert headline(metrics) == expected
