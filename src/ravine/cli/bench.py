"""``ravine bench``: the table of a benchmark, row by row as it is measured, and its JSON."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ravine.cli.exits import reported
from ravine.errors import ArgumentError
from ravine.report.strict_json import to_strict_json

__all__ = ["build_bench"]

Bench = Callable[..., dict[str, Any]]

Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="NAME", help="9k, 2M or 42M; may be repeated."),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", "-r", metavar="NAME", help="Such as AdamW; may be repeated."),
]
Losses = Annotated[
    list[str] | None,
    typer.Option("--loss", "-l", metavar="NAME", help="Such as mse; may be repeated."),
]
Sizes = Annotated[
    list[str] | None, typer.Option("--size", "-s", metavar="NAME", help="Such as 8.4M or 8192x10.")
]
Seconds = Annotated[
    float, typer.Option("--seconds", metavar="S", min=0.01, help="Time for each row.")
]
Device = Annotated[str, typer.Option("--device", "-d", metavar="D", help="cpu or cuda.")]
Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", help="Write the JSON there.", dir_okay=False),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the JSON, and nothing else, on stdout.")
]


@dataclass(frozen=True)
class Table:
    """How a benchmark's rows are shown.

    Attributes:
        columns: the heads and widths.
        cells: a row of the record as words, one for each column; the first names the row.
    """

    columns: tuple[tuple[str, int], ...]
    cells: Callable[[dict[str, Any]], tuple[str, ...]]


def build_bench(
    steps: Bench | None = None, losses: Bench | None = None, command: type[Any] | None = None
) -> typer.Typer:
    """Build the commands under ``ravine bench``.

    Args:
        steps: what measures steps; ``ravine.bench.bench_steps`` when None.
        losses: what measures losses; ``ravine.bench.bench_losses`` when None.
        command: the class of the commands.
    """
    app = typer.Typer(
        no_args_is_help=True, help="Time Ravine against what else is installed, on this machine."
    )

    @app.command("steps", cls=command)
    def steps_command(
        *,
        model: Models = None,
        rule: Rules = None,
        seconds: Seconds = 6.0,
        device: Device = "cpu",
        save: Save = None,
        as_json: AsJson = False,
    ) -> None:
        """Time one optimizer step against torch's three ways and the packages that are installed.

        All ways take turns in one process; medians. Ratio: the best peer's time divided by ours.
        Limit: the time that the bytes of the step need at the measured stream speed, divided by ours.
        """
        _run(
            steps, "bench_steps", _STEPS, save, as_json,
            models=model or (), rules=rule or (), seconds=seconds, device=device,
        )  # fmt: skip

    @app.command("losses", cls=command)
    def losses_command(
        *,
        loss: Losses = None,
        size: Sizes = None,
        seconds: Seconds = 6.0,
        device: Device = "cpu",
        save: Save = None,
        as_json: AsJson = False,
    ) -> None:
        """Time each loss, forward and backward, against eager torch and torch.compile.

        All ways take turns in one process; medians. Ratio: the peer's time divided by ours.
        Limit: the time that the bytes of input, target and gradient need at the measured stream
        speed, divided by ours. Checks: the part of our time that check="off" saves.
        """
        _run(
            losses, "bench_losses", _LOSSES, save, as_json,
            losses=loss or (), sizes=size or (), seconds=seconds, device=device,
        )  # fmt: skip

    return app


@reported()
def _run(
    given: Bench | None, own: str, table: Table, save: Path | None, as_json: bool, **options: Any
) -> None:
    """Run what was given, or else Ravine's own benchmark of that name, and show its rows."""
    bench: Bench = given or getattr(importlib.import_module("ravine.bench"), own)
    if save is not None:
        _check_writable(save)
    stream = sys.stderr if as_json else sys.stdout
    unable: dict[str, str] = {}
    widths = [width for _, width in table.columns]

    def show(row: dict[str, Any]) -> None:
        cells = table.cells(row)
        unable.update({f"{peer}, {cells[0]}": why for peer, why in row.get("unable", {}).items()})
        _print_row(stream, cells, widths)

    _print_row(stream, [head for head, _ in table.columns], widths)
    record = bench(on_row=show, **options)
    limits = [row["stream_limit_bytes_per_second"] / 1e9 for row in record["rows"]]
    print(f"stream limit, GB/s: {min(limits):.1f} to {max(limits):.1f}", file=stream)
    for line in missing_words(unable):
        print(line, file=stream)
    text = to_strict_json(record, indent=2)
    if save is not None:
        save.write_text(text + "\n", encoding="utf-8")
        print(f"written to {save}", file=stream)
    if as_json:
        typer.echo(text)


def step_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Turn a row of the record of steps into the words of the table.

    >>> step_cells({"model": "9k", "rule": "SGD", "microseconds": {"ravine": 5.0, "torch fused": 15.0},
    ...             "best_peer": "torch fused", "ratio": 3.0, "share_of_limit": 0.3})
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


def loss_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Turn a row of the record of losses into the words of the table; a peer that is unable has none.

    >>> loss_cells({"loss": "mse", "size": "64", "microseconds": {"ravine": 5.0, "torch eager": 15.0},
    ...             "ratios": {"torch eager": 3.0}, "share_of_limit": 0.3, "cost_of_checking": 0.04})
    ('mse 64', '5.0', '15.0', '3.00', '', '', '0.30', '4%')
    """
    times, ratios = row["microseconds"], row["ratios"]
    peers = [
        cell
        for peer in ("torch eager", "torch compile")
        for cell in ((f"{times[peer]:,.1f}", f"{ratios[peer]:.2f}") if peer in times else ("", ""))
    ]
    return (
        f"{row['loss']} {row['size']}",
        f"{times['ravine']:,.1f}",
        *peers,
        f"{row['share_of_limit']:.2f}",
        f"{row['cost_of_checking']:.0%}",
    )


_STEPS = Table(
    (
        ("", 22), ("ravine us", 12), ("best peer us", 12), ("best peer", 20), ("ratio", 7),
        ("of limit", 9),
    ),
    step_cells,
)  # fmt: skip
_LOSSES = Table(
    (
        ("", 26), ("ravine us", 12), ("eager us", 12), ("ratio", 7), ("compile us", 12),
        ("ratio", 7), ("of limit", 9), ("checks", 7),
    ),
    loss_cells,
)  # fmt: skip


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


def _print_row(stream: IO[str], cells: Sequence[str], widths: Sequence[int]) -> None:
    first, *others = zip(cells, widths, strict=True)
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
