"""``ravine lr-find``: the curve of a range test in the terminal, and what follows from it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ravine.cli.exits import DIVERGED, reported
from ravine.cli.train import batch_size as read_batch_size
from ravine.report.strict_json import to_strict_json
from ravine.report.words import number

__all__ = ["add_lr_find"]

Find = Callable[..., Any]

_WIDTH = 64


def add_lr_find(app: typer.Typer, *, command: type[Any], find: Find | None = None) -> None:
    """Add the command to the application.

    Args:
        app: where to add it.
        command: the class of the command.
        find: what finds; ``ravine.training.find_lr.find_lr`` when None.
    """

    @app.command("lr-find", cls=command)
    def lr_find_command(
        task: Annotated[
            str,
            typer.Argument(metavar="TASK", help="As of ravine train.", show_default=False),
        ],
        *,
        optimizer: Annotated[
            str | None,
            typer.Option("--optimizer", "-o", metavar="EXPR", help="Its lr is not used."),
        ] = None,
        loss: Annotated[
            str | None, typer.Option("--loss", "-l", metavar="EXPR", help="Default: the task's.")
        ] = None,
        regularize: Annotated[
            list[str] | None,
            typer.Option("--regularize", "-r", metavar="EXPR", help="May be repeated."),
        ] = None,
        batch_size: Annotated[
            Any,
            typer.Option(
                "--batch-size", "-b", metavar="N|all", parser=read_batch_size, help="Rows a step."
            ),
        ] = None,
        seeds: Annotated[
            int, typer.Option("--seeds", "-s", metavar="N", min=1, help="How many sweeps.")
        ] = 3,
        steps: Annotated[
            int, typer.Option("--steps", metavar="N", min=20, help="Of each sweep.")
        ] = 100,
        start: Annotated[
            float, typer.Option("--start", metavar="LR", help="Where a sweep begins.")
        ] = 1e-7,
        stop: Annotated[
            float, typer.Option("--stop", metavar="LR", help="Where it ends at the latest.")
        ] = 10.0,
        device: Annotated[
            str, typer.Option("--device", "-d", metavar="D", help="auto, cpu, cuda, cuda:1...")
        ] = "auto",
        as_json: Annotated[
            bool,
            typer.Option("--json", help="Print the record as JSON, and nothing else, on stdout."),
        ] = False,
    ) -> None:
        """Find a learning rate: train a few steps while it grows, with several seeds.

        Exit codes: 0 found, 1 the test cannot tell, 2 wrong usage, 130 interrupted.
        """
        with reported():
            # What a task of the user's own prints must not get into the JSON.
            quiet = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
            with quiet:
                test = (find or _own())(
                    task,
                    optimizer,
                    loss=loss,
                    regularize=regularize or None,
                    batch_size=batch_size,
                    seeds=seeds,
                    steps=steps,
                    start=start,
                    stop=stop,
                    device=device,
                )
            record = test.to_json()
            if as_json:
                typer.echo(to_strict_json(record))
            else:
                print_range_test(record, sys.stdout)
            if not record["found"]:
                raise typer.Exit(DIVERGED)


def print_range_test(record: Mapping[str, Any], stream: IO[str]) -> None:
    """Print the curve of the loss over the learning rate, the suggestion or why there is none.

    Args:
        record: the JSON of a `ravine.training.find_lr.RangeTest`.
        stream: where to print.
    """
    from ravine.cli.live import sparkline

    console = Console(file=stream, highlight=False)
    lrs, changes = record["lrs"][: len(record["changes"])], record["changes"]
    ascii_only = console.options.ascii_only
    curve = sparkline(changes, _WIDTH, ascii_only=ascii_only)
    config = record["config"]
    seeds = len(config["seeds"])

    def say(*parts: str | tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=True)

    say(f"{record['name']}: {config['optimizer']}, {config['loss']}, {seeds} seeds")
    if curve:
        left, right = f"{lrs[0]:.0e}", f"{lrs[-1]:.1e}"
        say("  ", (curve, "cyan"), "  loss against that of the start")
        marks = " " * len(curve)
        if record["found"]:
            place = sum(lr < record["lr"] for lr in lrs) * len(curve) // len(lrs)
            marks = " " * min(place, len(curve) - 1) + "^"
        say("  ", (marks, "bold green"))
        say("  ", left, " " * max(1, len(curve) - len(left) - len(right)), right, "  learning rate")
    if not record["found"]:
        say(("can't tell: ", "bold yellow"), record["reason"])
        return
    own = record["seeds"]
    say(("lr ", "bold"), (f"{record['lr']:g}", "bold green"), f"  {record['reason']}")
    if own:
        say(f"  the seeds by themselves: {min(own):.2g} to {max(own):.2g}")
    edge = record["edge"]
    say(
        f"  the loss rises from {edge:.2g} on"
        if edge
        else "  no learning rate made it rise for good"
    )
    say(f"  noise of a step {number(record['noise'])}, fall {number(record['fall'])}")
    if record["optimizer"]:
        words = ["ravine", "train", str(config["task"]), "--optimizer", record["optimizer"]]
        say(f"use it: {shlex.join(words)}")


def _own() -> Find:
    from ravine.training.find_lr import find_lr

    return find_lr
