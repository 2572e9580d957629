"""The drawings of the evidence: places and sizes, words, and names that are hostile."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from ravine.report.figures import LEAST, ROWS, figure
from ravine.report.svg import LETTER, WIDTH, Canvas, linear, logarithmic, signed

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</svg><script>alert(1)</script>&<b>"

FLOW: dict[str, Any] = {
    "kind": "flow",
    "title": "Gradient by layer",
    "axis": "norm",
    "layers": ["first", "middle", "last"],
    "series": [
        {"name": "start", "values": [1e-6, 1e-3, 1.0]},
        {"name": "end", "values": [0.0, "Infinity", None]},
    ],
    "summary": "fell",
    "caption": "see",
}
UNITS: dict[str, Any] = {
    "kind": "units",
    "title": "Dead",
    "columns": ["dead, at the start", "flat, at the end"],
    "rows": [{"layer": "a", "units": 32, "shares": [0.25, 1.0]},
             {"layer": "b", "units": 8, "shares": [0.0, "NaN"]}],
}  # fmt: skip
SPECTRUM: dict[str, Any] = {
    "kind": "spectrum",
    "title": "Spectrum",
    "axis": "eigenvalue",
    "series": [{"name": "end", "values": [-0.1, 1e-12, 10.0], "shares": [1e-9, 0.9, 1e-3]}],
}
FALLS: dict[str, Any] = {
    "kind": "falls",
    "title": "Falls",
    "axis": "fall",
    "bars": [{"name": "gradient", "value": 0.5},
             {"name": "lowest direction", "value": 1.0, "error": 0.25}],
    "whole": 4.0,
}  # fmt: skip
ALL = [FLOW, UNITS, SPECTRUM, FALLS]


def parsed(one: dict[str, Any]) -> ElementTree.Element:
    text = figure(one, 3).svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(text)


def texts(one: dict[str, Any]) -> list[str]:
    return [element.text or "" for element in parsed(one).iter(f"{SVG}text")]


@pytest.mark.parametrize("one", ALL, ids=lambda one: one["kind"])
def test_a_drawing_has_a_name_and_words_for_those_who_cannot_see_it(one: dict[str, Any]) -> None:
    root = parsed(one)
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "figure-3-title figure-3-desc"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and desc is not None
    assert (title.get("id"), title.text) == ("figure-3-title", one["title"])
    assert (
        desc.text == f"{one.get('summary', '')} {one.get('caption', '')}".strip() or not desc.text
    )
    assert "axis" not in one or any(one["axis"] in words for words in texts(one))


@pytest.mark.parametrize("one", ALL, ids=lambda one: one["kind"])
def test_nothing_is_drawn_outside(one: dict[str, Any]) -> None:
    root = parsed(one)
    _, _, width, height = map(float, str(root.get("viewBox")).split())
    assert width == WIDTH
    for element in root.iter():
        places = [(element.get("x"), element.get("y")), (element.get("cx"), element.get("cy"))]
        places += [tuple(pair.split(",")) for pair in (element.get("points") or "").split()]
        for x, y in places:
            if x is not None and y is not None:
                assert 0 <= float(x) <= width and 0 <= float(y) <= height
    for element in root.iter(f"{SVG}text"):
        if element.get("x") is None:
            continue
        long = LETTER * len(element.text or "")
        start = {"start": 0.0, "middle": long / 2, "end": long}[str(element.get("text-anchor"))]
        assert float(str(element.get("x"))) - start >= -4, element.text


@pytest.mark.parametrize("one", ALL, ids=lambda one: one["kind"])
def test_colours_are_those_of_the_theme(one: dict[str, Any]) -> None:
    text = figure(one, 0).svg
    assert not re.search(r"#[0-9a-fA-F]{3}|rgb\(", text)
    assert set(re.findall(r'(?:fill|stroke)="([^"]*)"', text)) <= {
        "none", *(f"var(--{name})" for name in
                  ("ink", "soft", "card", "line", "grid", "train", "valid", "bad")),
    }  # fmt: skip


def test_equal_ratios_of_gradients_are_equal_steps() -> None:
    dots = [c for c in parsed(FLOW).iter(f"{SVG}circle") if c.get("fill") == "var(--train)"]
    first, middle, last, *_ = [float(str(dot.get("cx"))) for dot in dots]
    assert middle - first == pytest.approx(last - middle, abs=0.2) and last > first


def test_zero_and_infinity_are_rings_at_the_edges_and_told() -> None:
    rings = [c for c in parsed(FLOW).iter(f"{SVG}circle") if c.get("fill") == "var(--card)"]
    assert len(rings) == 2
    left, right = (float(str(ring.get("cx"))) for ring in rings)
    assert left < 200 and right > WIDTH - 30
    assert "exactly 0" in figure(FLOW, 0).caption
    alone = {**FLOW, "series": FLOW["series"][:1]}
    assert "exactly 0" not in figure(alone, 0).caption


def test_a_share_is_as_wide_as_it_says() -> None:
    boxes = [b for b in parsed(UNITS).iter(f"{SVG}rect") if b.get("fill") == "var(--bad)"]
    widths = [float(str(box.get("width"))) for box in boxes]
    assert widths[0] == pytest.approx(widths[1] / 4, abs=0.1) and widths[2] == 0
    assert {"25%", "100%", "0%", "-"} <= set(texts(UNITS))


def test_a_spectrum_is_red_where_it_is_negative_and_short_shares_stay_to_be_seen() -> None:
    lines = [p for p in parsed(SPECTRUM).iter(f"{SVG}polyline") if p.get("stroke-width") == "2"]
    tones = [line.get("stroke") for line in lines]
    assert tones == ["var(--bad)", "var(--train)", "var(--train)"]
    ends = [[float(pair.split(",")[1]) for pair in str(p.get("points")).split()] for p in lines]
    tall = [bottom - top for bottom, top in ends]
    assert tall[0] == pytest.approx(3, abs=0.1)
    assert tall[2] / tall[1] == pytest.approx(3 / (6 + math.log10(0.9)), rel=0.02)
    assert str(LEAST).replace("0", "") in figure(SPECTRUM, 0).caption


def test_rounding_is_not_drawn_as_a_fall() -> None:
    bars = [{"name": "gradient", "value": 2e-16}, {"name": "lowest direction", "value": 0.0}]
    boxes = list(parsed({**FALLS, "bars": bars}).iter(f"{SVG}rect"))
    assert all(float(str(box.get("width"))) < 0.1 for box in boxes)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one["kind"])
def test_names_are_written_and_never_read_as_markup(one: dict[str, Any]) -> None:
    def hostile(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if k == "kind" else hostile(v) for k, v in value.items()}
        if isinstance(value, list):
            return [hostile(each) for each in value]
        return HOSTILE if isinstance(value, str) else value

    drawn = figure(hostile(one), 0)
    assert "<script" not in drawn.svg and "<b>" not in drawn.svg
    parsed(hostile(one))  # still one well-formed element


@pytest.mark.parametrize("kind", ["flow", "units", "spectrum", "falls"])
@pytest.mark.parametrize(
    "rest",
    [{}, {"layers": [], "series": [], "rows": [], "bars": []},
     {"layers": ["a"], "series": [{"values": [None]}], "rows": [{}], "bars": [{}]},
     {"series": [{"values": [0.0], "shares": ["NaN"]}], "bars": [{"value": "NaN"}]}],
    ids=["nothing", "empty", "holes", "nan"],
)  # fmt: skip
def test_a_damaged_drawing_is_a_drawing(kind: str, rest: dict[str, Any]) -> None:
    parsed({"kind": kind, **rest})


def test_a_kind_that_is_not_known_is_told() -> None:
    drawn = figure({"kind": "radar", "title": "New", "summary": "of a later version"}, 0)
    assert drawn.svg == "" and drawn.summary == "of a later version"
    assert "'radar'" in drawn.caption


def test_many_layers_are_thinned_and_the_worst_stays() -> None:
    values = [1.0] * 300
    values[123] = 1e-9
    many = {**FLOW, "layers": [f"layer{k}" for k in range(300)],
            "series": [{"name": "start", "values": values}]}  # fmt: skip
    drawn = figure(many, 0)
    assert "layer123" in drawn.svg
    shown = len([w for w in texts(many) if w.startswith("layer")])
    assert shown <= ROWS + 2 and f"{shown} of 300 layers are drawn." in drawn.caption


def test_a_long_name_keeps_its_end_and_is_whole_on_touch() -> None:
    canvas = Canvas("a", "b", "c")
    canvas.text(100, 10, "encoder.layers.11.attention.output", room=80)
    assert ">…ion.output<title>" in canvas.parts[0]
    assert "<title>encoder.layers.11.attention.output</title>" in canvas.parts[0]


@pytest.mark.parametrize("values", [[1.0], [3e-9, 2e7], [5e-324, 1e308], [0.9, 1.1]])
def test_a_logarithmic_scale_has_all_its_values_inside(values: list[float]) -> None:
    scale = logarithmic(values, 10, 20)
    assert all(10 - 1e-6 <= scale(value) <= 20 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks) <= 8


@pytest.mark.parametrize("high", [0.0, 1e-12, 0.3, 0.99, 1.0, 2.01, 7.0, 1e9])
def test_a_linear_scale_has_few_round_numbers(high: float) -> None:
    scale = linear(high, 0, 1)
    assert scale(high) <= 1 + 1e-9 and scale(0) == 0
    assert 2 <= len(scale.ticks) <= 7


@pytest.mark.parametrize("values", [[0.0], [-1.0], [1.0], [-3e-5, 2e4], [-9.0, -1.0]])
def test_a_signed_scale_keeps_the_order(values: list[float]) -> None:
    scale = signed(values, 0, 1)
    places = [scale(value) for value in sorted([*values, 0.0])]
    assert places == sorted(places) and all(-1e-9 <= place <= 1 + 1e-9 for place in places)
