"""Evidence as drawings, in plain data that the page draws.

Only what was measured for the checks is drawn: a drawing costs no measurement of its own.
"""

from __future__ import annotations

import math
from typing import Any

from ravine.diagnose.evidence import AS_IT_IS, Evidence
from ravine.diagnose.layer_drawings import dead_units, gradient_flow
from ravine.diagnose.place_drawings import falls, spectrum
from ravine.diagnose.replay import Trace
from ravine.diagnose.treated import WHOLE, Treated
from ravine.watch.finding import Finding


def drawings(
    evidence: Evidence, findings: list[Finding], treated: Treated | None = None
) -> list[dict[str, Any]]:
    """Return the drawings of a diagnosis.

    The curves of the run as it is, beside those with a remedy that helped; gradients by layer; dead
    and saturated units; the spectrum and what steps gain where the run stands.
    """
    helped = {t.remedy for finding in findings for t in finding.treatments if t.helped}
    if treated is not None and len(treated.remedies) > 1:
        helped.add(WHOLE)
    runs = [("as it is", evidence.replayed(AS_IT_IS))]
    treatments = [c for c in evidence.changes() if c.says in helped]
    treatments.sort(key=lambda change: change.says != WHOLE)
    runs += [(c.says, evidence.replayed(c)) for c in treatments]
    curves = [
        _chart("loss", "Training loss", runs, "train_loss"),
        _chart("valid", "Validation loss", runs, "valid_loss"),
    ]
    drawn = [chart for chart in curves if chart["curves"]]
    pictures = (gradient_flow, dead_units, spectrum, falls)
    return drawn + [one for draw in pictures if (one := draw(evidence)) is not None]


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
        "kind": "curves",
        "name": name,
        "title": title,
        "log": bool(values) and min(values) > 0 and max(values) / min(values) > 20,
        "axis": "epoch",
        "summary": "; ".join(f"{c['name']}: ends at {c['y'][-1]:.4g}" for c in curves),
        "curves": curves,
    }
