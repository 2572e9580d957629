"""Evidence as charts, in plain data that the page draws."""

from __future__ import annotations

import math
from typing import Any

from ravine.diagnose.evidence import AS_IT_IS, Evidence
from ravine.diagnose.replay import Trace
from ravine.watch.finding import Finding


def drawings(evidence: Evidence, findings: list[Finding]) -> list[dict[str, Any]]:
    """Return the charts of a diagnosis: the run as it is, beside those with a remedy that helped."""
    helped = {t.remedy for finding in findings for t in finding.treatments if t.helped}
    runs = [("as it is", evidence.replayed(AS_IT_IS))]
    runs += [(c.says, evidence.replayed(c)) for c in evidence.changes() if c.says in helped]
    return [
        chart
        for chart in (
            _chart("loss", "Training loss", runs, "train_loss"),
            _chart("valid", "Validation loss", runs, "valid_loss"),
        )
        if chart["curves"]
    ]


_PARTS = ("train", "valid", "test", "raw")


def _chart(name: str, title: str, runs: list[tuple[str, Trace]], column: str) -> dict[str, Any]:
    curves = []
    for number, (label, trace) in enumerate(runs[: len(_PARTS)]):
        points = [
            (epoch, value)
            for epoch, value in zip(trace.epochs_seen, getattr(trace, column), strict=False)
            if math.isfinite(value)
        ]
        if points:
            xs, ys = zip(*points, strict=True)
            curves.append({"name": label, "part": _PARTS[number], "x": list(xs), "y": list(ys)})
    values = [y for curve in curves for y in curve["y"]]
    return {
        "name": name,
        "title": title,
        "log": bool(values) and min(values) > 0 and max(values) / min(values) > 20,
        "axis": "epoch",
        "summary": "; ".join(f"{c['name']}: ends at {c['y'][-1]:.4g}" for c in curves),
        "curves": curves,
    }
