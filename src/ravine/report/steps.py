"""Charts by step, for runs whose epochs are too few to draw a curve with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ravine.report.curves import POINTS, Chart
from ravine.report.thinning import thin
from ravine.report.words import as_number, label, number

__all__ = ["FEW_EPOCHS", "step_charts"]

FEW_EPOCHS = 30
"""Epochs up to which steps are drawn as well."""

_ENOUGH = 10
"""Rows from which on they make a curve."""

_CHARTS = {
    "loss": {"loss": ("single steps", "raw"), "smoothed_loss": ("smoothed", "train")},
    "lr": {"lr": ("learning rate", "only")},
    "gradient_norm": {"gradient_norm": ("gradient norm", "only")},
    "samples_per_second": {"samples_per_second": ("samples per second", "only")},
}
_LOG_RATIO = 20.0


def step_charts(steps: Sequence[Mapping[str, Any]], epochs: int) -> list[Chart]:
    """Make the charts of the rows of ``steps.jsonl``.

    Args:
        steps: the rows, each with its ``step``.
        epochs: how many epochs the history has.

    Returns:
        A chart for each quantity with a number in it; none where there are fewer than 10 rows, or
        more than 30 epochs, or more epochs than rows.
    """
    rows = [row for row in steps if math.isfinite(as_number(row.get("step")))]
    if len(rows) < max(_ENOUGH, epochs) or epochs > FEW_EPOCHS:
        return []
    numbers = [as_number(row["step"]) for row in rows]
    made = (_chart(name, curves, rows, numbers) for name, curves in _CHARTS.items())
    return [chart for chart in made if chart is not None]


def _chart(
    name: str,
    curves: Mapping[str, tuple[str, str]],
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[float],
) -> Chart | None:
    series = {key: [as_number(row.get(key)) for row in rows] for key in curves}
    finite = {key: [v for v in values if math.isfinite(v)] for key, values in series.items()}
    every = [value for values in finite.values() for value in values]
    if not every:
        return None
    log = min(every) > 0 and max(every) / min(every) >= _LOG_RATIO
    chart = Chart(name, f"{label(name)} by step", log, axis="step")
    for key, (words, part) in curves.items():
        if not finite[key]:
            continue
        shown = thin(series[key], POINTS)
        y = [series[key][i] if math.isfinite(series[key][i]) else None for i in shown]
        x = [numbers[i] for i in shown]
        chart.curves.append({"name": words, "part": part, "x": x, "y": y, "dots": False})
        chart.summary = f"{number(finite[key][0])} → {number(finite[key][-1])}"
    if len(chart.curves) > 1:
        chart.summary += " smoothed over 100 steps"
    return chart
