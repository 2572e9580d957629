"""``ravine train``: hands the options to training, shows its events, prints what came of it."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import typer

from ravine.cli.exits import DIVERGED, INTERRUPTED
from ravine.errors import RunDirectoryError
from ravine.report.strict_json import to_strict_json

__all__ = ["Train", "run_training"]

Train = Callable[..., Any]
"""``ravine.training.train`` or anything that takes its arguments."""


def run_training(
    task: str | None,
    *,
    run_dir: Path | None = None,
    resume: Path | None = None,
    as_json: bool = False,
    train: Train | None = None,
    **options: Any,
) -> None:
    """Train and show it; the exit code says how it ended.

    Args:
        task: a built-in name or the path of a file; None for that of the run that is resumed.
        run_dir: where the run is written; None makes ``runs/TASK-DATE-TIME``.
        resume: the directory of a run that goes on.
        as_json: print only the record on stdout, all else on stderr.
        train: what trains; ``ravine.training.train`` when None.
        options: the further arguments of ``train``, passed on as they are.

    Raises:
        RavineError: a wrong argument, or NonFiniteError for a run that diverged.
        typer.Exit: 1 for a record that says it diverged, 130 for one that was interrupted.
    """
    if train is None:
        from ravine.training import train as own_train

        train = own_train
    from ravine.training.devices import is_first

    if not is_first():  # of several processes the first one writes and shows
        try:
            train(task, **options if resume is None else {**options, "resume": resume})
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        return
    from ravine.cli.display import choose_display
    from ravine.cli.outlet import Outlet
    from ravine.cli.results import print_results
    from ravine.training.events import Event, RunEnded
    from ravine.watch import FindingWarning

    outlet = Outlet(sys.stderr if as_json else sys.stdout)
    ended: list[Any] = []

    def remember(event: Event) -> None:
        if isinstance(event, RunEnded):
            ended[:] = [event.record]

    # What a task of the user's own prints must not get into the JSON, nor fail for a lost reader.
    printed = contextlib.redirect_stdout(cast("IO[str]", outlet))
    try:
        with _where(task, run_dir, resume) as where, printed:
            with choose_display(outlet) as display, warnings.catch_warnings():
                warnings.simplefilter("ignore", FindingWarning)  # the display has the event
                record = train(task, listeners=[remember, display], **where, **options)
            ended[:] = ended or [record]
    finally:
        # A run that fails was not for nothing: what it reached is shown before the error.
        plain: Mapping[str, Any] = ended[0].to_json() if ended else {}
        if ended and as_json:
            typer.echo(to_strict_json(plain))
        elif ended:
            print_results(plain, getattr(ended[0], "run_dir", None), cast("IO[str]", outlet))
        if plain.get("status") == "interrupted" and ended[0].run_dir is not None:
            named = str(plain["config"]["task"])  # a file is only run if it is named
            file = [named] if named.endswith(".py") else []
            again = shlex.join(["ravine", "train", *file, "--resume", str(ended[0].run_dir)])
            typer.echo(f"resume: {again}", err=as_json)
    if plain.get("status") == "diverged":
        raise typer.Exit(DIVERGED)
    if plain.get("status") == "interrupted":
        raise typer.Exit(INTERRUPTED)


@contextlib.contextmanager
def _where(task: str | None, run_dir: Path | None, resume: Path | None) -> Iterator[dict[str, Any]]:
    """Give the directory of the run; one that was made for nothing is taken away again."""
    if run_dir is not None or resume is not None or task is None:
        given = {"run_dir": run_dir, "resume": resume}
        yield {name: path for name, path in given.items() if path is not None}
        return
    made = _make_directory(task)
    try:
        yield {"run_dir": made}
    except BaseException:
        with contextlib.suppress(OSError):  # it is not empty: it holds a run
            made.rmdir()
            made.parent.rmdir()
        raise


def _make_directory(task: str) -> Path:
    # Without dots: Windows takes "nul.x" for the device. In bytes: a name has room for 255.
    name = re.sub(r"[^\w-]+", "-", Path(task).stem).encode()[:80].decode(errors="ignore")
    stem = f"{name.strip('-') or 'task'}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1, 1000):
        path = Path("runs", stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # two runs within a second
            continue
        except OSError as error:
            raise RunDirectoryError(
                "the run directory cannot be made",
                where=str(path),
                got=error.strerror or str(error),
                do="name one that can be written with --run-dir",
            ) from error
        return path
    raise RunDirectoryError("there is no free name for the run directory", where=f"runs/{stem}")
