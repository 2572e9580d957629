"""One self-contained HTML page from the plain JSON of a record, and the words for its numbers.

Nothing heavy is imported here: Jinja2 and Plotly are loaded when a page is written.
"""

from __future__ import annotations

from ravine.report.command import command_line
from ravine.report.page import render_report, write_report
from ravine.report.strict_json import to_strict_json

__all__ = ["command_line", "render_report", "to_strict_json", "write_report"]
