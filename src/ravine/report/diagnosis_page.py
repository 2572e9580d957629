"""The page of a diagnosis: findings with their evidence drawn, the root cause first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ravine.report.curves import Chart
from ravine.report.document import document
from ravine.report.figures import figure
from ravine.report.tables import pairs
from ravine.report.words import as_number, duration, number

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
    drawings = [one for one in record.get("drawings") or [] if isinstance(one, Mapping)]
    charts = [_chart(one) for one in drawings if one.get("kind", "curves") == "curves"]
    others = [one for one in drawings if one.get("kind", "curves") != "curves"]
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
        figures=[figure(one, place) for place, one in enumerate(others)],
        notes=[str(one) for one in record.get("notes") or []],
        treated=_treated(record.get("treated")),
        measured=pairs(record.get("measured") or {}),
    )


def _treated(one: Any) -> dict[str, Any] | None:
    if not isinstance(one, Mapping):
        return None
    remedies = [r for r in one.get("remedies") or [] if isinstance(r, Mapping)]
    settings = one.get("settings")
    return {
        "task": str(one.get("task") or "TASK"),
        "settings": pairs(settings) if isinstance(settings, Mapping) else [],
        "by_hand": [
            (
                str(r.get("code", "")),
                str(_part(r, "trial").get("remedy", "")),
                str(r.get("where", "")),
            )
            for r in remedies
            if r.get("by_hand")
        ],
        "left_out": [str(words) for words in one.get("left_out") or []],
        "measure": str(one.get("measure", "")),
        "before": _numbers(one.get("before")),
        "after": _numbers(one.get("after")),
        "unproved": str(one.get("unproved") or ""),
    }


def _listed(value: Any) -> Any:
    """Return a mapping, such as a norm for each layer, as one line of words."""
    if not isinstance(value, Mapping):
        return value
    return ", ".join(f"{name}: {number(each)}" for name, each in value.items())


def _part(one: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = one.get(key)
    return value if isinstance(value, Mapping) else {}


def _finding(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: str(one.get(key) or "") for key in ("code", "name", "severity", "confidence")},
        "tone": _TONES.get(str(one.get("severity")), "warn"),
        "root": bool(one.get("root")),
        "where": str(one.get("where") or ""),
        "says": str(one.get("says") or ""),
        "evidence": pairs({k: _listed(v) for k, v in _part(one, "evidence").items()}),
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
