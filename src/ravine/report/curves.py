"""From the history of a run to the charts of the page: what is drawn, on which axis, in words.

A chart is plain data; ``page.js`` hands it to Plotly. Every chart also has a sentence, for those
who cannot see it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ravine.report.thinning import thin
from ravine.report.words import PARTS, as_number, epoch_number, label, number

__all__ = ["POINTS", "Best", "Chart", "best_row", "charts", "columns", "epochs"]

POINTS = 1500
"""The most points drawn for a curve; longer histories are thinned."""

_NOT_CURVES = frozenset({"epoch", "step", "seconds"})
_LAST = ("lr", "gradient_norm")
# Below this ratio of largest to smallest a logarithmic axis hides more than it shows.
_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Best:
    """The best epoch: its position in the history, its number, and why it is called best."""

    position: int
    epoch: float
    why: str


@dataclass
class Chart:
    """One chart: its title, whether its axis is logarithmic, its curves, its sentence."""

    name: str
    title: str
    log: bool
    curves: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    broken: float | None = None  # the first epoch with a value that is not finite
    summary: str = ""
    thinned: bool = False
    axis: str = "epoch"

    @property
    def warning(self) -> str:
        """Say from where on the curves have no numbers, or nothing."""
        if self.broken is None:
            return ""
        return f"not finite from epoch {epoch_number(self.broken)}"

    def drawing(self) -> dict[str, Any]:
        """Return what ``page.js`` needs; names are escaped because Plotly reads markup in them."""
        best = None
        if self.best:
            text = f"best: {epoch_number(self.best.epoch)}"
            best = {"epoch": self.best.epoch, "text": text}
        curves = [{**curve, "name": html.escape(curve["name"])} for curve in self.curves]
        drawn = {"log": self.log, "curves": curves, "best": best, "broken": self.broken}
        return drawn | {"axis": self.axis}


def columns(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """List every key of the rows, in order of first appearance."""
    return list(dict.fromkeys(key for row in history for key in row))


def epochs(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Number the rows: their ``epoch``, or their place from 1 where they have none."""
    found = [as_number(row.get("epoch")) for row in history]
    return [e if math.isfinite(e) else i + 1.0 for i, e in enumerate(found)]


def best_row(history: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> Best | None:
    """Find the best epoch: the one the record names, else that of the lowest validation loss.

    Without a validation loss the training loss decides; with neither there is no best epoch.
    """
    numbers = epochs(history)
    named = as_number(metrics.get("best_epoch"))
    if named in numbers:
        return Best(numbers.index(named), named, "the weights of this epoch were kept")
    for key in ("valid/loss", "train/loss"):
        values = [as_number(row.get(key)) for row in history]
        finite = [i for i, value in enumerate(values) if math.isfinite(value)]
        if finite:
            position = min(finite, key=values.__getitem__)
            return Best(position, numbers[position], f"lowest {label(key)}")
    return None


def charts(history: Sequence[Mapping[str, Any]], best: Best | None) -> list[Chart]:
    """Make the charts of a history: loss, every metric, learning rate, gradient norm.

    Args:
        history: the rows of the record, any number of them.
        best: the epoch to mark, or None.

    Returns:
        A chart for each quantity that has at least one number; the parts of the data (training,
        validation, test) share a chart.
    """
    groups: dict[str, list[str]] = {}
    for key in columns(history):
        split, slash, name = key.partition("/")
        if key not in _NOT_CURVES:
            groups.setdefault(name if slash and split in PARTS else key, []).append(key)
    order = {"loss": -1} | {name: len(groups) + i for i, name in enumerate(_LAST)}
    numbers = epochs(history)
    made = []
    for name in sorted(groups, key=lambda g: order.get(g, 0)):
        series = {key: [as_number(row.get(key)) for row in history] for key in groups[name]}
        series = {k: v for k, v in series.items() if any(map(math.isfinite, v))}
        if series:
            made.append(_chart(name, series, numbers, best))
    return made


def _chart(
    name: str, series: dict[str, list[float]], numbers: list[float], best: Best | None
) -> Chart:
    finite = [v for values in series.values() for v in values if math.isfinite(v)]
    log = "accuracy" not in name and min(finite) > 0 and max(finite) / min(finite) >= _LOG_RATIO
    chart = Chart(name, label(name), log, best=best if name not in _LAST else None)
    sentences = []
    for key, values in series.items():
        split, slash, _ = key.partition("/")
        own = split if slash and split in PARTS else "only"
        shown = thin(values, POINTS, keep=[best.position] if best else [])
        chart.thinned |= len(shown) < len(values)
        chart.curves.append(
            {
                "name": label(key) if own == "only" else own,
                "part": own,
                "x": [numbers[i] for i in shown],
                "y": [values[i] if math.isfinite(values[i]) else None for i in shown],
                "dots": _needs_dots(values),
            }
        )
        sentences.append(_sentence(own, values, numbers, highest="accuracy" in name))
        gaps = [i for i, value in enumerate(values) if not math.isfinite(value)]
        # Validation may be computed at some epochs only: a gap is a break when nothing follows.
        if gaps and not math.isfinite(values[-1]):
            first = 1 + max(i for i, value in enumerate(values) if math.isfinite(value))
            chart.broken = min(chart.broken or math.inf, numbers[first])
    chart.summary = "; ".join(sentences)
    return chart


def _needs_dots(values: list[float]) -> bool:
    """Tell whether a line alone would hide points: few of them, or one between two gaps."""
    if len(values) <= 30:
        return True
    ok = [False, *map(math.isfinite, values), False]
    return any(ok[i] and not ok[i - 1] and not ok[i + 1] for i in range(1, len(ok) - 1))


def _sentence(part: str, values: list[float], numbers: list[float], *, highest: bool) -> str:
    ok = [i for i, value in enumerate(values) if math.isfinite(value)]
    first, last = ok[0], ok[-1]
    best = (max if highest else min)(ok, key=values.__getitem__)
    start = f"{part} " if part != "only" else ""
    text = (
        f"{start}{number(values[first])} → {number(values[last])}"
        if first != last
        else (f"{start}{number(values[last])}")
    )
    if best not in (first, last):
        word = "highest" if highest else "lowest"
        text += f" ({word} {number(values[best])} at epoch {epoch_number(numbers[best])})"
    missing = len(values) - len(ok)
    return f"{text}, no number in {missing:,} of {len(values):,} epochs" if missing else text
