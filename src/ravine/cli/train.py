"""``ravine train``: its options, which are the arguments of ``ravine.train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.cli.configuration import print_configuration
from ravine.cli.exits import reported
from ravine.cli.run import Train, run_training

__all__ = ["add_train"]


def add_train(app: typer.Typer, *, command: type[Any], train: Train | None = None) -> None:
    """Add the command to the application.

    An option that is given is handed to training under its own name: a new one needs a declaration
    here and nothing else.

    Args:
        app: where to add it.
        command: the class of the command.
        train: what trains; ``ravine.training.train`` when None.
    """

    @app.command("train", cls=command)
    def train_command(
        ctx: typer.Context,
        task: Annotated[
            str | None,
            typer.Argument(
                metavar="TASK",
                help="A built-in task (see: ravine list tasks), or a Python file with task(seed).",
                show_default=False,
            ),
        ] = None,
        *,
        optimizer: Annotated[
            str | None,
            typer.Option(
                "--optimizer",
                "-o",
                metavar="EXPR",
                help="Such as sgd(lr=0.1). Default: the task's, else adam(lr=1e-3).",
            ),
        ] = None,
        loss: Annotated[
            str | None,
            typer.Option(
                "--loss", "-l", metavar="EXPR", help="Such as huber(delta=2). Default: the task's."
            ),
        ] = None,
        regularize: Annotated[
            list[str] | None,
            typer.Option(
                "--regularize",
                "-r",
                metavar="EXPR",
                help="Such as dropout(0.1), or none. May be repeated. Default: the task's.",
            ),
        ] = None,
        batch_size: Annotated[
            Any,
            typer.Option(
                "--batch-size",
                "-b",
                metavar="N|all",
                parser=batch_size,
                help="Rows a step. Default: the task's, else 64.",
            ),
        ] = None,
        epochs: Annotated[
            int | None,
            typer.Option(
                "--epochs",
                "-e",
                metavar="N",
                min=1,
                help="Passes over the data. Default: the task's, else 20.",
            ),
        ] = None,
        seed: Annotated[
            int,
            typer.Option(
                "--seed", "-s", metavar="N", min=0, help="The same seed gives the same bits."
            ),
        ] = 0,
        device: Annotated[
            str, typer.Option("--device", "-d", metavar="D", help="auto, cpu, cuda, cuda:1...")
        ] = "auto",
        accumulate: Annotated[
            int | None,
            typer.Option(
                "--accumulate", metavar="K", min=1, help="Passes for a step, each of a part of it."
            ),
        ] = None,
        precision: Annotated[
            str | None,
            typer.Option("--precision", metavar="P", help="float32, bfloat16 or float16."),
        ] = None,
        parallel: Annotated[
            str | None,
            typer.Option(
                "--parallel",
                metavar="P",
                help="Under torchrun: data (a copy of the model in each process) or sharded.",
            ),
        ] = None,
        compile: Annotated[
            bool | None,
            typer.Option("--compile/--no-compile", help="Compile the model (torch.compile)."),
        ] = None,
        checkpoint_activations: Annotated[
            bool | None,
            typer.Option(
                "--checkpoint-activations/--no-checkpoint-activations",
                help="Compute the inside of blocks again instead of keeping it.",
            ),
        ] = None,
        run_dir: Annotated[
            Path | None,
            typer.Option(
                "--run-dir", metavar="DIR", help="Default: runs/TASK-DATE-TIME.", show_default=False
            ),
        ] = None,
        resume: Annotated[
            Path | None,
            typer.Option(
                "--resume",
                metavar="RUN_DIR",
                help="Go on with a run that was interrupted or killed, to the same bits.",
                show_default=False,
            ),
        ] = None,
        checkpoint_every: Annotated[
            str,
            typer.Option(
                "--checkpoint-every",
                metavar="N|TIME|never",
                parser=_checkpoint_every,
                help="Steps, or a time such as 30s, 5min, 1h. Default: as costs less than 2 %.",
            ),
        ] = "auto",
        keep_checkpoints: Annotated[
            int,
            typer.Option(
                "--keep-checkpoints",
                metavar="N",
                min=1,
                help="How many of the last checkpoints stay, beside that of the best epoch.",
            ),
        ] = 2,
        nonfinite: Annotated[
            str,
            typer.Option(
                "--nonfinite",
                metavar="stop|skip|rollback",
                help="What a NaN or infinite loss, gradient or weight does: end the run before its "
                "step, leave the step out, or go back with half the learning rate.",
            ),
        ] = "stop",
        tensorboard: Annotated[
            bool,
            typer.Option("--tensorboard", help="Write event files to DIR/tensorboard as well."),
        ] = False,
        watch: Annotated[
            bool,
            typer.Option(
                "--watch/--no-watch", help="Look at some of the steps for what is wrong with them."
            ),
        ] = True,
        config: Annotated[
            Path | None,
            typer.Option(
                "--config",
                "-c",
                metavar="FILE",
                help="Hyperparameters in TOML; the command line wins. See --dry-run.",
                show_default=False,
            ),
        ] = None,
        assignments: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="KEY=VALUE",
                help="Such as optimizer.lr=3e-4 or epochs=9. May be repeated.",
                show_default=False,
            ),
        ] = None,
        dry_run: Annotated[
            bool,
            typer.Option("--dry-run", help="Print the resolved configuration; train nothing."),
        ] = False,
        as_json: Annotated[
            bool,
            typer.Option("--json", help="Print the record as JSON, and nothing else, on stdout."),
        ] = False,
    ) -> None:
        """Train a task and write the run: weights, history and a page with the curves.

        Exit codes: 0 good, 1 the run diverged, 2 wrong usage, 130 interrupted.
        """
        if task is None and resume is None and config is None:
            raise typer.BadParameter("Missing argument 'TASK', or --resume RUN_DIR.")
        chosen = given(ctx, locals())
        with reported():
            if config is not None or assignments or dry_run:
                from ravine.training.config import configure

                configuration = configure(config, chosen, assignments or ())
                if dry_run:
                    print_configuration(configuration, as_json=as_json)
                    return
                chosen = configuration.arguments()
            run_training(chosen.pop("task", None), as_json=as_json, train=train, **chosen)


_NOT_TRAINING = ("as_json", "config", "assignments", "dry_run")
"""Options of the command that are not arguments of ``ravine.train``."""


def given(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands on the command line, by the names of training's arguments.

    What is not given is left to training, whose defaults are written in one place.

    Args:
        ctx: knows where each value came from.
        values: the values by name, as Typer converted them; names that are no options are passed by.
    """
    return {
        name: values[name]
        for name in ctx.params
        if name not in _NOT_TRAINING and _is_given(ctx, name)
    }


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def batch_size(text: str) -> int | str:
    """Read ``--batch-size``."""
    if text == "all":
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a whole number of at least 1 nor 'all'.")


def _checkpoint_every(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
