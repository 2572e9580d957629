"""The page of a diagnosis: findings with their evidence drawn, the root cause first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ravine.report.curves import Chart
from ravine.report.document import document
from ravine.report.tables import pairs
from ravine.report.words import as_number, duration

__all__ = ["render_diagnosis"]

_TONES = {"critical": "bad", "warning": "warn", "info": ""}
_STATUS = {
    "healthy": ("no problem found", "good"),
    "found": ("found", "bad"),
    "unclear": ("something is wrong, and no cause could be proved", "warn"),
}


def render_diagnosis(record: Mapping[str, Any]) -> str:
    """Return the page of a diagnosis's JSON as text."""
    findings = [_finding(one) for one in record.get("findings") or []]
    status, tone = _STATUS.get(str(record.get("verdict")), (str(record.get("verdict")), "warn"))
    charts = [_chart(one) for one in record.get("drawings") or []]
    return document(
        "diagnosis.html.j2",
        charts,
        name=str(record.get("name") or "task"),
        version=str(record.get("ravine", "")),
        status=status if not findings else f"{len(findings)} finding" + "s" * (len(findings) > 1),
        tone=tone,
        message=f"in {duration(as_number(record.get('seconds')))}",
        findings=findings,
        ruled_out=[str(one) for one in record.get("ruled_out") or []],
        measured=pairs(record.get("measured") or {}),
    )


def _finding(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: str(one.get(key) or "") for key in ("code", "name", "severity", "confidence")},
        "tone": _TONES.get(str(one.get("severity")), "warn"),
        "root": bool(one.get("root")),
        "where": str(one.get("where") or ""),
        "says": str(one.get("says") or ""),
        "evidence": pairs(one.get("evidence") or {}),
        "ruled_out": [str(words) for words in one.get("ruled_out") or []],
        "trials": [_trial(trial) for trial in one.get("treatments") or []],
    }


def _trial(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "remedy": str(trial.get("remedy", "")),
        "measure": str(trial.get("measure", "")),
        "helped": bool(trial.get("helped")),
        "control_remedy": str(trial.get("control_remedy") or ""),
        **{key: _numbers(trial.get(key)) for key in ("before", "after", "control")},
    }


def _numbers(values: Any) -> str:
    listed: Sequence[Any] = values if isinstance(values, (list, tuple)) else ()
    return ", ".join(f"{as_number(value):.2g}" for value in listed) or "-"


def _chart(one: Mapping[str, Any]) -> Chart:
    return Chart(
        name=str(one.get("name", "")),
        title=str(one.get("title", "")),
        log=bool(one.get("log")),
        curves=[
            {
                "name": str(curve.get("name", "")),
                "part": str(curve.get("part", "only")),
                "x": [as_number(x) for x in curve.get("x") or []],
                "y": [as_number(y) for y in curve.get("y") or []],
                "dots": len(curve.get("x") or []) < 40,
            }
            for curve in one.get("curves") or []
        ],
        summary=str(one.get("summary", "")),
        axis=str(one.get("axis", "epoch")),
    )
