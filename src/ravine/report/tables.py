"""The words and numbers of the page that are not curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ravine.report.curves import Best, columns, epochs
from ravine.report.strict_json import to_strict_json
from ravine.report.thinning import thin
from ravine.report.words import PARTS, as_number, duration, epoch_number, label, number, share

__all__ = ["headline", "history_table", "metric", "pairs", "results", "tiles"]

ROWS = 300
"""The most rows of the history shown as a table."""


def headline(metrics: Mapping[str, Any]) -> tuple[str, str] | None:
    """Choose the number that answers "how good is it": a validation metric before a loss."""
    keys = [key for key in metrics if "/" in key]
    for split in ("valid", "test", "train"):
        own = [key for key in keys if key.startswith(split + "/")]
        own.sort(key=lambda key: key.endswith("/loss"))
        if own:
            return metric(own[0], metrics[own[0]]), label(own[0])
    return None


def metric(key: str, value: Any) -> str:
    if key.endswith("accuracy") and math.isfinite(as_number(value)):
        return share(as_number(value))
    if isinstance(value, str) and not math.isfinite(as_number(value)):
        return number(as_number(value))
    return number(value)


def tiles(
    facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]], best: Best | None
) -> list[tuple[str, str]]:
    tiles = [("epochs", f"{len(history):,}")]
    if best and len(history) > 1:
        tiles.append(("best epoch", epoch_number(best.epoch)))
    counts = [key for key in ("weights", "steps") if key in facts]
    tiles += [(label(key), number(facts[key])) for key in counts]
    if "seconds" in facts:
        tiles.append(("time", duration(as_number(facts["seconds"]))))
    if "samples_per_second" in facts:
        rate = as_number(facts["samples_per_second"])
        tiles.append(("samples a second", number(round(rate) if math.isfinite(rate) else rate)))
    return tiles


def results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange the metrics: a row for each quantity, a column for each part of the data."""
    cells: dict[str, dict[str, str]] = {}
    other = []
    for key, value in metrics.items():
        split, slash, name = key.partition("/")
        if slash and split in PARTS:
            cells.setdefault(name, {})[split] = metric(key, value)
        else:
            other.append((label(key), metric(key, value)))
    splits = [s for s in PARTS if any(s in row for row in cells.values())]
    return {
        "splits": [PARTS[s] for s in splits],
        "rows": [(label(n), [row.get(s, "-") for s in splits]) for n, row in cells.items()],
        "other": other,
    }


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)) and not any(isinstance(v, Mapping) for v in value):
            return ", ".join(map(str, value)) or "none"
        if isinstance(value, (Mapping, list, tuple)):
            return to_strict_json(value)
        return number(value)

    # A seed is a name, not a quantity: no thousands separators.
    return [(label(str(k)), str(v) if k == "seed" else text(v)) for k, v in values.items()]


def history_table(history: Sequence[Mapping[str, Any]], best: Best | None) -> dict[str, Any]:
    keys = columns(history)
    decisive = "valid/loss" if "valid/loss" in keys else "train/loss"
    values = [as_number(row.get(decisive)) for row in history]
    shown = thin(values, ROWS, keep=[best.position] if best else [])
    numbers = epochs(history)
    return {
        "columns": [label(key) for key in keys if key != "epoch"],
        "rows": [
            (
                epoch_number(numbers[i]),
                best is not None and i == best.position,
                [_cell(history[i].get(key)) for key in keys if key != "epoch"],
            )
            for i in shown
        ],
        "total": len(history),
    }


def _cell(value: Any) -> str:
    return number(as_number(value)) if isinstance(value, str) else number(value)
