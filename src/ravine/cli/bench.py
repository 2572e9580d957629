"""``ravine bench``: the table of a benchmark, row by row as it is measured, and its JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ravine.cli.exits import reported
from ravine.errors import ArgumentError
from ravine.report.strict_json import to_strict_json

__all__ = ["build_bench"]

Bench = Callable[..., dict[str, Any]]

_WIDTHS = (22, 12, 12, 20, 7, 9)


def build_bench(steps: Bench | None = None, command: type[Any] | None = None) -> typer.Typer:
    """Build the commands under ``ravine bench``.

    Args:
        steps: what measures; ``ravine.bench.bench_steps`` when None.
        command: the class of the commands.
    """
    app = typer.Typer(
        no_args_is_help=True, help="Time Ravine against what else is installed, on this machine."
    )

    @app.command("steps", cls=command)
    def steps_command(
        *,
        model: Annotated[
            list[str] | None,
            typer.Option("--model", "-m", metavar="NAME", help="9k, 2M or 42M; may be repeated."),
        ] = None,
        rule: Annotated[
            list[str] | None,
            typer.Option("--rule", "-r", metavar="NAME", help="Such as AdamW; may be repeated."),
        ] = None,
        seconds: Annotated[
            float,
            typer.Option("--seconds", metavar="S", min=0.01, help="Time for each row."),
        ] = 6.0,
        device: Annotated[
            str, typer.Option("--device", "-d", metavar="D", help="cpu or cuda.")
        ] = "cpu",
        save: Annotated[
            Path | None,
            typer.Option("--save", metavar="FILE", help="Write the JSON there.", dir_okay=False),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print the JSON, and nothing else, on stdout.")
        ] = False,
    ) -> None:
        """Time one optimizer step against torch's three ways and the packages that are installed.

        All ways take turns in one process; medians. Ratio: the best peer's time divided by ours.
        Limit: the time that the bytes of the step need at the measured stream speed, divided by ours.
        """
        with reported():
            _run(
                steps or _own_steps(), save, as_json,
                models=model or (), rules=rule or (), seconds=seconds, device=device,
            )  # fmt: skip

    return app


def _own_steps() -> Bench:
    from ravine.bench import bench_steps

    return bench_steps


def _run(bench: Bench, save: Path | None, as_json: bool, **options: Any) -> None:
    if save is not None:
        _check_writable(save)
    stream = sys.stderr if as_json else sys.stdout
    unable: dict[str, str] = {}

    def show(row: dict[str, Any]) -> None:
        unable.update(
            {f"{peer}, {row['rule']}": why for peer, why in row.get("unable", {}).items()}
        )
        _print_row(stream, *row_cells(row))

    _print_row(stream, "", "ravine us", "best peer us", "best peer", "ratio", "of limit")
    record = bench(on_row=show, **options)
    limits = ", ".join(f"{x / 1e9:.1f}" for x in record["stream_limit_bytes_per_second"])
    print(f"stream limit, GB/s: {limits}", file=stream)
    for line in missing_words(unable):
        print(line, file=stream)
    text = to_strict_json(record, indent=2)
    if save is not None:
        save.write_text(text + "\n", encoding="utf-8")
        print(f"written to {save}", file=stream)
    if as_json:
        typer.echo(text)


def row_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Turn a row of the record into the words of the table.

    >>> row_cells({"model": "9k", "rule": "SGD", "microseconds": {"ravine": 5.0, "torch fused": 15.0},
    ...            "best_peer": "torch fused", "ratio": 3.0, "share_of_limit": 0.3})
    ('9k SGD', '5.0', '15.0', 'torch fused', '3.00', '0.30')
    """
    best = row["best_peer"]
    return (
        f"{row['model']} {row['rule']}",
        f"{row['microseconds']['ravine']:,.1f}",
        "" if best is None else f"{row['microseconds'][best]:,.1f}",
        best or "no peer",
        "" if best is None else f"{row['ratio']:.2f}",
        f"{row['share_of_limit']:.2f}",
    )


def missing_words(unable: dict[str, str]) -> list[str]:
    """Say who is missing and why; a package that is not installed is named once.

    >>> missing_words({"heavyball, SGD": "not installed", "heavyball, Adam": "not installed"})
    ['heavyball: not installed']
    """
    lines = {}
    for name, why in unable.items():
        if why == "not installed":
            lines[name.split(",")[0]] = why
        elif why != "has no such rule":
            lines[name] = why
    return [f"{name}: {why}" for name, why in lines.items()]


def _print_row(stream: IO[str], *cells: str) -> None:
    first, *others = zip(cells, _WIDTHS, strict=True)
    words = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
    print(" ".join(words), file=stream, flush=True)


def _check_writable(path: Path) -> None:
    """Fail before minutes of measuring, not after."""
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ArgumentError(
            "the result cannot be written",
            where=str(path),
            got=error.strerror or str(error),
            do="name another file with --save",
        ) from error
