"""What is printed after a run: how it ended, the table of results, where it was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ravine.report.tables import results
from ravine.report.words import as_number, duration

__all__ = ["print_results"]

_STYLES = {"completed": "green", "stopped early": "green", "diverged": "red"}


def print_results(record: Mapping[str, Any], run_dir: object, stream: IO[str]) -> None:
    """Print the end of a run.

    Args:
        record: the JSON of its record.
        run_dir: where the run was written, or None.
        stream: where to print.
    """
    console = Console(file=stream, highlight=False)
    status = str(record.get("status", ""))
    count = len(record.get("history") or [])
    seconds = as_number((record.get("facts") or {}).get("seconds"))
    head = Text.assemble(
        f"\n{record.get('name', 'run')}: ",
        (status, f"bold {_STYLES.get(status, 'yellow')}"),
        f" after {count:,} epoch{'' if count == 1 else 's'} in {duration(seconds)}",
    )
    console.print(head, soft_wrap=True)
    if record.get("message"):
        console.print(Text(str(record["message"])), soft_wrap=True)
    arranged = results(record.get("metrics") or {})
    if arranged["rows"]:
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", collapse_padding=True)
        table.add_column("")
        for split in arranged["splits"]:
            table.add_column(split, justify="right")
        for title, cells in arranged["rows"]:
            # Text, not str: a name is not markup.
            table.add_row(Text(title), *map(Text, cells))
        console.print(table)
    for title, value in arranged["other"]:
        console.print(Text(f"  {title} {value}\n"), soft_wrap=True)
    codes = list(dict.fromkeys(str(one["code"]) for one in record.get("findings") or []))
    if codes:
        more = f"ravine explain {codes[0]}"
        console.print(Text(f"watch found {', '.join(codes)}; read on: {more}"), soft_wrap=True)
    if run_dir is not None:
        console.print(Text(f"run   {run_dir}"), soft_wrap=True)
        page = Path(str(run_dir)) / "report.html"
        if page.is_file():
            console.print(Text(f"page  {page}"), soft_wrap=True)
