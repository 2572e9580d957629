"""Writes the page of a run: one HTML file that needs no network and no server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.report.command import command_line
from ravine.report.curves import POINTS, best_row, charts
from ravine.report.diagnosis_page import render_diagnosis
from ravine.report.document import document, write_page
from ravine.report.steps import step_charts
from ravine.report.tables import headline, history_table, pairs, results, tiles
from ravine.report.words import epoch_number

__all__ = ["render_report", "write_report"]

_TONES = {"completed": "good", "stopped early": "good", "diverged": "bad", "interrupted": "warn"}


def write_report(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a run as one self-contained HTML file.

    The page holds the result and status, the curves, a table of results, the command line that
    repeats the run, its configuration, its environment and its history. It loads nothing: Plotly
    is inside, and a content security policy forbids both network and foreign scripts, so that a
    record from a stranger can be opened.

    Args:
        record: the plain JSON of a record, of kind ``"train"`` or ``"diagnosis"``. NaN and
            infinite values may come as floats or as the strings of :func:`to_strict_json`. A
            history of more than 1,500 rows is thinned for drawing, and the page says so. The rows
            of ``steps.jsonl`` under ``"steps"`` are drawn as well where there are 30 epochs at most.
        path: the file to write; missing folders are made, an existing file is replaced at once.

    Returns:
        The path written.

    Raises:
        ArgumentError, ArgumentTypeError: if ``record`` is no such record.
        RunDirectoryError: if the file cannot be written.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> page = write_report({"kind": "train", "name": "digits"}, Path(folder.name) / "report.html")
    >>> page.read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    >>> folder.cleanup()
    """
    is_diagnosis = isinstance(record, Mapping) and record.get("kind") == "diagnosis"
    render = render_diagnosis if is_diagnosis else render_report
    return write_page(render(record), path)


def render_report(record: Mapping[str, Any]) -> str:
    """Return the page of a record as text; :func:`write_report` says what is on it."""
    history = _checked(record)
    metrics = _mapping(record, "metrics")
    config = _mapping(record, "config")
    facts = _mapping(record, "facts")
    best = best_row(history, metrics)
    steps = [row for row in record.get("steps") or [] if isinstance(row, Mapping)]
    drawn = charts(history, best) + step_charts(steps, len(history))
    return document(
        "page.html.j2",
        drawn,
        name=str(record.get("name") or config.get("task") or "run"),
        version=str(record.get("ravine", "")),
        status=str(record.get("status") or "unknown"),
        tone=_TONES.get(str(record.get("status")), "warn"),
        message=str(record.get("message") or ""),
        headline=headline(metrics),
        findings=[
            [str(one.get(key, "")) for key in ("code", "name", "says")]
            for one in record.get("findings") or []
            if isinstance(one, Mapping)
        ],
        tiles=tiles(facts, history, best),
        best=best,
        best_epoch=epoch_number(best.epoch) if best else "",
        points=POINTS,
        epochs=len(history),
        results=results(metrics),
        command=command_line(config),
        tables=[
            ("Configuration", pairs(config)),
            ("Facts", pairs(facts)),
            ("Environment", pairs(_mapping(record, "environment"))),
        ],
        history=history_table(history, best),
    )


def _checked(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if not isinstance(record, Mapping):
        raise ArgumentTypeError(
            "a page needs the plain JSON of a record",
            got=type(record).__name__,
            expected='a mapping with "kind", "metrics", "history"...',
            do="call record.to_json(), or read the record.json of a run directory",
        )
    if record.get("kind") != "train":
        raise ArgumentError(
            "there is no page for this kind of record",
            where='record["kind"]',
            got=repr(record.get("kind")),
            expected='"train"',
        )
    history = record.get("history") or []
    if not isinstance(history, (list, tuple)) or not all(isinstance(r, Mapping) for r in history):
        raise ArgumentTypeError(
            "the history of a record is a list of rows",
            where='record["history"]',
            got=type(history).__name__,
            expected='a list of mappings such as {"epoch": 1, "train/loss": 0.5}',
        )
    return history


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key) or {}
    if not isinstance(value, Mapping):
        raise ArgumentTypeError(
            "a part of the record has the wrong type",
            where=f'record["{key}"]',
            got=type(value).__name__,
            expected="a mapping",
        )
    return value
