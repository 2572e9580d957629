"""A page as one file: its template, its style, its charts with what draws them, nothing to be fetched."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ravine.errors import RunDirectoryError
from ravine.report.curves import Chart
from ravine.report.strict_json import to_strict_json

__all__ = ["document", "write_page"]


def document(template: str, charts: Sequence[Chart], **context: Any) -> str:
    """Return the text of a page.

    Args:
        template: the name of a Jinja template of this folder.
        charts: drawn in the elements ``chart-0``, ``chart-1``...
        context: further values of the template.
    """
    from markupsafe import Markup

    script, plotly = _text("page.js"), _plotly() if charts else ""
    text: str = _template(template).render(
        charts=charts,
        style=Markup(_text("page.css")),
        data=Markup(_in_script([chart.drawing() for chart in charts])),
        script=Markup(script),
        plotly=Markup(plotly),
        hashes=[_hash(text) for text in (plotly, script) if text],
        **context,
    )
    return text


def write_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page; a reader meets the old one or the new one.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    target = Path(path)
    # Written beside and then renamed: a reader never meets half a page.
    beside = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunDirectoryError(
            "the page cannot be written",
            where=str(target),
            got=error.strerror or str(error),
            do="give a path whose folder can be written to",
        ) from error
    return target


def _in_script(value: Any) -> str:
    """Write JSON that cannot end its script element, whatever its strings hold."""
    text = to_strict_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache  # Plotly's 5 MB are the same in every page: they were half of the time that a page takes
def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # Inside a string or a pattern "<\/" means "</" and does not end the script element.
    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script").replace("\r\n", "\n")


def _text(name: str) -> str:
    return resources.files("ravine.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text(name))
