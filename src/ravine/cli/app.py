"""The Typer application: the commands, their options and their help.

Nothing of PyTorch is imported before a command has been read, so that help is immediate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ravine.cli.bench import build_bench
from ravine.cli.diagnose import add_diagnose
from ravine.cli.exits import reported
from ravine.cli.listing import KINDS, Sources, print_list
from ravine.cli.lr_find import add_lr_find
from ravine.cli.run import Train
from ravine.cli.train import add_train

__all__ = ["build_app", "main"]

_EXAMPLES = {
    "ravine": (
        "ravine train digits",
        'ravine train digits --optimizer "rmsprop(lr=1e-3, l2=1e-4)" --epochs 30',
        "ravine list optimizers",
    ),
    "train": (
        "ravine train digits",
        'ravine train diabetes --loss "huber(delta=2)" --batch-size all --seed 3',
        'ravine train digits --optimizer "adam(lr=warmup(100) >> cosine(900, peak=1e-3))"',
        'ravine train my_task.py --regularize "dropout(0.1)" --run-dir runs/try',
        "ravine train --config run.toml --set optimizer.lr=3e-4 --dry-run",
    ),
    "diagnose": ("ravine diagnose my_task.py", "ravine diagnose digits --budget 20"),
    "explain": ("ravine explain LR-HIGH", "ravine explain"),
    "lr-find": (
        "ravine lr-find digits",
        'ravine lr-find my_task.py --optimizer "sgd(momentum=0.9)" --seeds 5',
    ),
    "list": ("ravine list", "ravine list schedules"),
    "steps": (
        "ravine bench steps --model 2M --rule AdamW --rule RMSprop",
        "ravine bench steps --save steps.json",
    ),
    "losses": (
        "ravine bench losses --loss cross_entropy --size 8192x1000",
        "ravine bench losses --save losses.json",
    ),
}


def _print_example(name: str | None) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    lines = "\n".join(f"  {line}" for line in _EXAMPLES.get(name or "", _EXAMPLES["ravine"]))
    console.print(Text("Example:", style="bold"))
    console.print(Text(lines, style="cyan"), soft_wrap=True)


class _Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        _print_example(None)
        super().format_help(ctx, formatter)


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        _print_example(self.name)
        super().format_help(ctx, formatter)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ravine {version('ravine')}")
        raise typer.Exit


def build_app(*, train: Train | None = None, sources: Sources | None = None) -> typer.Typer:
    """Build the command.

    Args:
        train: what trains; ``ravine.training.train`` when None.
        sources: what there is to list, by kind; Ravine's own catalogues when None.

    Returns:
        The Typer application; calling it reads ``sys.argv`` and exits.
    """
    app = typer.Typer(
        cls=_Group,
        name="ravine",
        no_args_is_help=True,
        add_completion=False,
        # An error that Ravine did not foresee is a bug, and Python's own traceback reports it best.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def ravine(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_print_version, is_eager=True, help="Print the version."
            ),
        ] = False,
    ) -> None:
        """Train models with exact, fast losses, update rules, schedules and regularisers."""

    add_diagnose(app, command=_Command)
    add_train(app, command=_Command, train=train)
    add_lr_find(app, command=_Command)

    @app.command("list", cls=_Command)
    def list_command(
        kind: Annotated[
            str | None,
            typer.Argument(
                metavar="KIND", help="One of " + ", ".join(KINDS) + ".", show_default=False
            ),
        ] = None,
    ) -> None:
        """List what can be named: optimizers, losses, schedules, regularizers, tasks."""
        with reported():
            print_list(kind, sources)

    app.add_typer(build_bench(command=_Command), name="bench")
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; the entry point ``ravine``.

    Args:
        argv: the words after ``ravine``; those of the process when None.
    """
    build_app()(args=None if argv is None else list(argv), prog_name="ravine")
