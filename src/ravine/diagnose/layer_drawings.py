"""Drawings of what goes through the layers: gradients backward, activations forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import Gradients, run
from ravine.diagnose.probes.units import Activation, units

BEGINNING = 8
"""Looks at the gradients, from the first step on, whose median is the start."""


def gradient_flow(evidence: Evidence) -> dict[str, Any] | None:
    """Return the norm of each layer's gradient, first layer first, at the start and at the end."""
    seen = evidence.known(run)
    if seen is None or not seen.gradients or len(seen.gradients[0].norms) < 2:
        return None
    layers = list(seen.gradients[0].norms)
    kinds = dict(seen.fresh.model.named_modules())
    start = seen.gradients[:BEGINNING]
    end = seen.gradients[-1]
    series: list[dict[str, Any]] = [
        {"name": _steps(start), "values": [_typical(start, layer) for layer in layers]}
    ]
    if end not in start:
        series.append({"name": f"step {end.step}", "values": [end.norms.get(n) for n in layers]})
    first, last = series[0]["values"][0], series[0]["values"][-1]
    told = f"{first:.2g} in the first layer, {last:.2g} in the last"
    if first and last and math.isfinite(first / last):
        told += f": a ratio of {first / last:.2g}"
    return {
        "kind": "flow",
        "name": "gradient-flow",
        "title": "Gradient by layer",
        "axis": "norm of the gradient (loss per weight)",
        "layers": [f"{name} ({type(kinds[name]).__name__})" for name in layers],
        "series": series,
        "summary": f"At the start {told}.",
        "caption": "The signal comes from the last layer, at the bottom, and goes up. Points that "
        "move left by powers of ten on the way up: the first layers do not learn. To the right: the "
        "gradient grows from layer to layer.",
    }


def _steps(looks: Sequence[Gradients]) -> str:
    if len(looks) == 1:
        return f"step {looks[0].step}"
    return f"median of steps {looks[0].step} to {looks[-1].step}"


def _typical(looks: Sequence[Gradients], layer: str) -> float:
    values = [look.norms.get(layer, 0.0) for look in looks]
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else math.inf


def dead_units(evidence: Evidence) -> dict[str, Any] | None:
    """Return the shares of dead units and flat values of each activation, before and after."""
    seen = evidence.known(units)
    if seen is None:
        return None
    before, after = list(seen.first.activations), list(seen.last.activations)
    if not before or len(before) != len(after):
        return None
    rows = [_row(one, other) for one, other in zip(before, after, strict=True)]
    worst = max(rows, key=lambda row: max(row["shares"]))
    column = max(range(len(COLUMNS)), key=lambda k: worst["shares"][k])
    most = f"Most: {worst['shares'][column]:.0%} ({COLUMNS[column]}) in {worst['layer']}."
    return {
        "kind": "units",
        "name": "dead-units",
        "title": "Dead and saturated units",
        "columns": list(COLUMNS),
        "rows": rows,
        "summary": most if any(max(row["shares"]) for row in rows) else "None is, in any layer.",
        "caption": "Dead: the share of a layer's units through which no row lets a gradient pass. "
        "Flat: the share of all values where the slope is below 2.7 % of the steepest (for a ReLU: "
        "values at 0, and half of them is normal). First layer at the top.",
    }


COLUMNS = (
    "dead, at the start",
    "dead, at the end",
    "flat, at the start",
    "flat, at the end",
)


def _row(before: Activation, after: Activation) -> dict[str, Any]:
    place = before.module or "the model"
    return {
        "layer": f"{place} ({before.kind}{', the output' if before.head else ''})",
        "units": before.units,
        "shares": [before.dead, after.dead, before.flat, after.flat],
    }
