"""The page of a run: what is on it, hard histories, and records from strangers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import fake_run
import pytest

from ravine.errors import ArgumentError, ArgumentTypeError, RunDirectoryError
from ravine.report import render_report, write_report

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>&\"'\u2028{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page as a browser reads it: elements with attributes, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)
        elif self._inside[-1] == "script":
            self.scripts[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(*args: Any, **changes: Any) -> Page:
    return Page(render_report(fake_run.record(*args, **changes)))


# What is on the page


def test_the_page_says_what_the_record_says() -> None:
    text = page(facts={"weights": 12345, "seconds": 3.2, "kernel": "cpu, serial"}).text
    for words in (
        "digits",
        "completed",
        "99.39 % validation accuracy",
        "weights 12,345",
        "time 3.2 s",
        "cpu, serial",
        "adam(lr=0.001)",
        "torch 2.13.0",
        'ravine train digits --optimizer "adam(lr=0.001)"',
        "loss logarithmic",
    ):
        assert words in text


def test_the_page_has_a_chart_for_every_quantity_and_says_it_in_words() -> None:
    made = page()
    assert len(made.all("figure")) == 4
    drawn = json.loads(made.scripts[0])
    assert [len(chart["curves"]) for chart in drawn] == [2, 1, 1, 1]
    assert "train 1.713 → 0.01482" in made.text
    assert "valid 1.801 → 0.1903 (lowest 0.1338 at epoch 14)" in made.text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    made = Page(write_report(fake_run.record(), tmp_path / "r.html").read_text(encoding="utf-8"))
    links = [v for _, attributes in made.elements for k, v in attributes.items() if k == "href"]
    assert links == ["data:,"]
    assert not any("src" in attributes for _, attributes in made.elements)
    policy = next(m["content"] for m in made.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "plotly.js v" in made.scripts[1]


def test_the_policy_lets_exactly_the_two_scripts_run() -> None:
    import base64
    import hashlib

    made = page()
    policy = next(m["content"] for m in made.all("meta") if "http-equiv" in m)
    assert policy is not None
    digests = [hashlib.sha256(text.encode()).digest() for text in made.scripts[1:]]
    wanted = [f"sha256-{base64.b64encode(digest).decode()}" for digest in digests]
    assert re.findall(r"sha256-[^']+", policy) == wanted


def test_the_page_can_be_read_by_everyone() -> None:
    made = page()
    assert made.all("html") == [{"lang": "en"}]
    assert any(m.get("name") == "viewport" for m in made.all("meta"))
    assert len(made.all("h1")) == 1
    assert all("scope" in th for th in made.all("th"))
    ids = {attributes["id"] for _, attributes in made.elements if "id" in attributes}
    named = [a.get("aria-labelledby") for tag, a in made.elements if tag in ("section", "figure")]
    assert all(name for name in named)
    assert {word for name in named for word in str(name).split()} <= ids


def _contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2 for two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        line = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(theme: int) -> None:
    css = resources.files("ravine.report").joinpath("page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for name in ("ink", "soft", "good", "bad", "train", "valid", "test", "only"):
        assert _contrast(colour[name], colour["card"]) >= 4.5, name
    for name in ("good", "bad", "warn"):
        assert _contrast(colour[name], colour[f"{name}-back"]) >= 4.5, name
    assert _contrast(colour["soft"], colour["page"]) >= 4.5
    assert _contrast(colour["ink"], colour["good-back"]) >= 4.5


# Strangers


def test_nothing_of_a_record_becomes_markup_or_script() -> None:
    record = fake_run.record(3, name=HOSTILE, message=HOSTILE, status=HOSTILE, ravine=HOSTILE)
    for part in ("config", "environment", "facts", "metrics"):
        record[part] = {**record[part], HOSTILE: HOSTILE}
    record["config"] |= {"task": HOSTILE, "optimizer": HOSTILE, "regularize": [HOSTILE]}
    record["metrics"] |= {f"valid/{HOSTILE}": 1.0}
    for row in record["history"]:
        row |= {HOSTILE: 1.0, f"valid/{HOSTILE}": 2.0, "note": HOSTILE}
    text = render_report(record)
    hostile, harmless = Page(text), page(3)
    # The same elements with the same scripts as any page, more rows and one more chart.
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in harmless.elements}
    assert hostile.scripts[1:] == harmless.scripts[1:]
    assert not any(k.startswith("on") for _, attributes in hostile.elements for k in attributes)
    assert "<" not in hostile.scripts[0]
    assert "\u2028" not in hostile.scripts[0]
    assert "{{ 7 * 7 }}" in hostile.text
    names = [curve["name"] for chart in json.loads(hostile.scripts[0]) for curve in chart["curves"]]
    assert not any("<" in name for name in names)  # Plotly reads markup in names


# Files and wrong arguments


def test_the_page_is_written_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    assert write_report(fake_run.record(1), target) == target
    write_report(fake_run.record(0), str(target))
    assert "No epoch was finished" in target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"(?s)cannot be written.*where:.*file"):
        write_report(fake_run.record(1), tmp_path / "file" / "report.html")


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ([], ArgumentTypeError, "(?s)plain JSON of a record.*got:.*list.*to_json"),
        ({"kind": "compare"}, ArgumentError, "(?s)no page for this kind.*'compare'"),
        ({"kind": "train", "history": {}}, None, ""),
        ({"kind": "train", "history": 3}, ArgumentTypeError, "a list of rows"),
        ({"kind": "train", "history": [3]}, ArgumentTypeError, "a list of rows"),
        (
            {"kind": "train", "metrics": [3]},
            ArgumentTypeError,
            r'(?s)wrong type.*record\["metrics"\]',
        ),
    ],
)
def test_what_is_no_record_is_refused(record: Any, error: Any, message: str) -> None:
    if error is None:
        assert render_report(record)
    else:
        with pytest.raises(error, match=message):
            render_report(record)
