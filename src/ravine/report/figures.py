"""Drawings of a diagnosis's evidence, from plain JSON: gradients, units, curvature, steps.

They are SVG text: no script draws them, so that they are there without one, on paper and in either
theme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ravine.report.svg import WIDTH, Canvas, linear, logarithmic, short, signed
from ravine.report.thinning import thin
from ravine.report.words import as_number

__all__ = ["Figure", "figure"]

ROWS = 40
"""The most layers drawn."""

_ROW, _LEFT, _RIGHT = 22, 168, WIDTH - 16
_TONES = (("train", "dot"), ("valid", "diamond"))


@dataclass(frozen=True)
class Figure:
    """A drawing with its words.

    Attributes:
        title, summary, caption: what it is, what was measured, and what to see in it.
        svg: the drawing; "" where there is none for its kind.
    """

    title: str
    summary: str
    caption: str
    svg: str


def figure(one: Mapping[str, Any], number: int) -> Figure:
    """Draw one drawing of a record; the number is its own in the page."""
    title, summary = str(one.get("title", "")), str(one.get("summary", ""))
    draw = _KINDS.get(str(one.get("kind")))
    caption = str(one.get("caption", ""))
    if draw is None:
        note = f"There is no drawing for {str(one.get('kind'))!r} in this version."
        return Figure(title, summary, note, "")
    canvas = Canvas(f"figure-{number}", title, f"{summary} {caption}".strip())
    notes = draw(canvas, one)
    return Figure(title, summary, " ".join(filter(None, (caption, notes))), canvas.svg())


def _flow(canvas: Canvas, one: Mapping[str, Any]) -> str:
    layers = [str(name) for name in one.get("layers") or []]
    series = [
        (str(line.get("name", "")), [as_number(value) for value in line.get("values") or []])
        for line in (one.get("series") or [])[: len(_TONES)]
    ]
    shown = thin([*series[0][1], *([0.0] * len(layers))][: len(layers)] if series else [], ROWS)
    positive = [v for _, values in series for v in values if 0 < v < math.inf] or [1.0]
    scale = logarithmic(positive, _LEFT + 24, _RIGHT - 24)
    top = 8.0
    bottom = top + _ROW * len(shown)
    canvas.axis(scale, top, bottom, f"{one.get('axis', '')}, logarithmic")
    for place, k in enumerate(shown):
        canvas.text(_LEFT - 8, top + _ROW * (place + 0.5) + 4, layers[k], anchor="end", tone="ink",
                    room=_LEFT - 16)  # fmt: skip
    odd = False
    for (name, values), (tone, shape) in zip(series, _TONES, strict=False):
        points = []
        for place, k in enumerate(shown):
            value = values[k] if k < len(values) else math.nan
            y = top + _ROW * (place + 0.5)
            if 0 < value < math.inf:
                points.append((scale(value), y))
            elif not math.isnan(value):
                odd = True
        canvas.line(points, tone, width=1.5, dash="" if shape == "dot" else "5 3")
        for place, k in enumerate(shown):
            value = values[k] if k < len(values) else math.nan
            y = top + _ROW * (place + 0.5)
            words = f"{layers[k]}, {name}: {value:.3g}"
            if 0 < value < math.inf:
                canvas.mark(scale(value), y, shape, tone, words)
            elif not math.isnan(value):
                x = _RIGHT - 4 if value > 0 else _LEFT + 4
                canvas.mark(x, y, "ring", tone, words)
    canvas.height = bottom + 66
    _legend(canvas, [name for name, _ in series], bottom + 56)
    return " ".join(
        filter(
            None,
            (
                "A ring at the left edge is exactly 0, one at the right edge is not finite."
                if odd
                else "",
                _thinned(len(layers), len(shown), "layers"),
            ),
        )
    )


def _legend(canvas: Canvas, names: list[str], y: float) -> None:
    x = float(_LEFT)
    for name, (tone, shape) in zip(names, _TONES, strict=False):
        canvas.mark(x + 4, y - 4, shape, tone, name)
        canvas.text(x + 14, y, name, tone="ink")
        x += 40 + 7 * len(name)


def _thinned(all_of_them: int, shown: int, what: str) -> str:
    return f"{shown} of {all_of_them} {what} are drawn." if shown < all_of_them else ""


def _units(canvas: Canvas, one: Mapping[str, Any]) -> str:
    columns = [str(name) for name in one.get("columns") or []]
    rows = [row for row in one.get("rows") or [] if isinstance(row, Mapping)]
    worst = [max(map(as_number, row.get("shares") or [0.0])) for row in rows]
    shown = thin(worst, ROWS)
    left = 190.0
    cell = (WIDTH - left - 8) / max(len(columns), 1)
    for number, name in enumerate(columns):
        words = name.split(", ", 1)
        for line, part in enumerate(words):
            x = left + cell * (number + 0.5)
            canvas.text(x, 14 + 15 * line, part, anchor="middle", tone="soft", bold=line == 0)
    top = 40.0
    for place, k in enumerate(shown):
        y = top + (_ROW + 2) * place
        row = rows[k]
        units = as_number(row.get("units"))
        count = f" {units:,.0f}" if math.isfinite(units) else ""
        canvas.text(left - 8, y + 15, f"{row.get('layer', '')}{count}", anchor="end", tone="ink",
                    room=left - 12)  # fmt: skip
        for number, value in enumerate([as_number(v) for v in row.get("shares") or []]):
            x = left + cell * number
            canvas.box(x + 2, y, cell - 4, _ROW, "grid")
            if math.isfinite(value):
                # Never darker than this: the number has to be read on it in both themes.
                canvas.box(x + 2, y, (cell - 4) * min(max(value, 0.0), 1.0), _ROW, "bad", 0.38)
            says = f"{value:.0%}" if math.isfinite(value) else "-"
            canvas.text(x + cell / 2, y + 15, says, anchor="middle", tone="ink")
    canvas.height = top + (_ROW + 2) * len(shown) + 8
    return "The number beside a layer is that of its units. " + _thinned(
        len(rows), len(shown), "activations"
    )


LEAST = 1e-6
"""The smallest share of a spectrum that has a height of its own."""


def _spectrum(canvas: Canvas, one: Mapping[str, Any]) -> str:
    series = [
        (
            str(line.get("name", "")),
            [
                (as_number(value), as_number(share))
                for value, share in zip(
                    line.get("values") or [], line.get("shares") or [], strict=False
                )
            ],
        )
        for line in (one.get("series") or [])[: len(_TONES)]
    ]
    values = [value for _, pairs in series for value, _ in pairs if math.isfinite(value)]
    scale = signed(values or [1.0], 72, _RIGHT)
    rounding = 1e-9 * max(map(abs, values), default=0.0)
    height, y = 110.0, 10.0
    decades = round(-math.log10(LEAST))
    for name, pairs in series:
        bottom = y + height
        last = name == series[-1][0]
        for k in range(0, decades + 1, 2):
            level = y + height * k / decades
            canvas.line([(72, level), (_RIGHT, level)], "grid")
            canvas.text(66, level + 4, short(10.0**-k), anchor="end")
        canvas.axis(scale, y, bottom, "" if not last else str(one.get("axis", "")))
        for value, share in pairs:
            if math.isfinite(value) and math.isfinite(share):
                tall = 1 + math.log10(max(share, LEAST)) / decades
                x = scale(value)
                tone = "bad" if value < -rounding else "train"
                canvas.line([(x, bottom), (x, bottom - max(height * tall, 3))], tone, width=2)
        canvas.text(_RIGHT, y + 12, name, anchor="end", tone="ink", bold=True)
        y = bottom + 34
    canvas.parts.append(
        f'<text transform="translate(12 {y / 2 - 8:.0f}) rotate(-90)" text-anchor="middle" '
        'fill="var(--soft)">share of the eigenvalues</text>'
    )
    canvas.height = y + 12
    return (
        f"Shares below {short(LEAST)} are drawn as the shortest lines. Around 0 the axis is linear, "
        "beyond a ten thousandth of the largest logarithmic."
    )


def _falls(canvas: Canvas, one: Mapping[str, Any]) -> str:
    bars = [bar for bar in one.get("bars") or [] if isinstance(bar, Mapping)]
    values = [as_number(bar.get("value")) for bar in bars]
    errors = [as_number(bar.get("error", 0.0)) for bar in bars]
    ends = [v + e for v, e in zip(values, errors, strict=True) if math.isfinite(v + e)]
    left = 226.0
    whole = as_number(one.get("whole"))
    least = 1e-3 * abs(whole) if math.isfinite(whole) else 0.0  # rounding is not drawn large
    scale = linear(max(*ends, least, key=float) if ends else 1.0, left, _RIGHT - 40)
    bottom = 8.0 + 30 * len(bars)
    canvas.axis(scale, 8, bottom, str(one.get("axis", "")))
    for number, (bar, value, error) in enumerate(zip(bars, values, errors, strict=True)):
        y = 8.0 + 30 * number
        name = str(bar.get("name", ""))
        canvas.text(left - 8, y + 19, name, anchor="end", tone="ink", room=left - 12)
        if not math.isfinite(value):
            canvas.text(left + 4, y + 19, "not finite", tone="bad")
            continue
        tone = "train" if "gradient" in name else "valid"
        canvas.box(left, y + 6, scale(value) - left, 18, tone)
        end = value
        if math.isfinite(error) and error > 0:
            low, end = max(value - error, 0.0), value + error
            canvas.line([(scale(low), y + 15), (scale(end), y + 15)], "ink", width=1.5)
        canvas.text(scale(end) + 6, y + 19, f"{value:.2g}", tone="ink")
    canvas.height = bottom + 44
    return f"The loss there is {whole:.3g}." if math.isfinite(whole) else ""


_KINDS: dict[str, Callable[[Canvas, Mapping[str, Any]], str]] = {
    "flow": _flow,
    "units": _units,
    "spectrum": _spectrum,
    "falls": _falls,
}
