"""``ravine diagnose``: prints what a diagnosis found, worst first."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.cli.exits import INTERRUPTED, reported
from ravine.report.strict_json import to_strict_json

__all__ = ["add_diagnose"]

FOUND = 1
_COLOURS = {"critical": "red", "warning": "yellow", "info": "blue"}


def add_diagnose(app: typer.Typer, *, command: type[Any]) -> None:
    """Add the command to the application."""

    @app.command("diagnose", cls=command)
    def diagnose_command(
        task: Annotated[
            str | None,
            typer.Argument(
                metavar="TASK",
                help="A built-in task, a Python file with task(seed), or the directory of a run.",
                show_default=False,
            ),
        ] = None,
        *,
        run_dir: Annotated[
            Path | None,
            typer.Option(
                "--run-dir",
                metavar="DIR",
                help="Of a run of TASK whose choices hold, where it cannot name the task itself.",
                show_default=False,
            ),
        ] = None,
        seed: Annotated[
            int | None,
            typer.Option(
                "--seed",
                "-s",
                metavar="N",
                min=0,
                help="Default: the run's, else 0.",
                show_default=False,
            ),
        ] = None,
        budget: Annotated[
            float, typer.Option("--budget", metavar="SECONDS", min=0, help="For replays.")
        ] = 60.0,
        report: Annotated[
            Path | None,
            typer.Option("--report", metavar="FILE", help="Write the page with the evidence."),
        ] = None,
        apply: Annotated[
            Path | None,
            typer.Option(
                "--apply",
                metavar="FILE",
                help="Write what helped as a configuration: ravine train TASK --config FILE.",
                show_default=False,
            ),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print the diagnosis as JSON, and nothing else.")
        ] = False,
        select: Annotated[
            list[str] | None,
            typer.Option("--select", metavar="CODE", help="Only these findings. May be repeated."),
        ] = None,
        ignore: Annotated[
            list[str] | None,
            typer.Option("--ignore", metavar="CODE", help="Not these findings. May be repeated."),
        ] = None,
    ) -> None:
        """Say why a training run fails, and prove the remedy by replay.

        Exit codes: 0 nothing found, 1 findings above info, 2 wrong usage, 130 interrupted.
        """
        with reported():
            from ravine.diagnose import diagnose
            from ravine.errors import ArgumentError

            only, without = _codes(select), _codes(ignore)
            if apply is not None and (only or without):
                raise ArgumentError(
                    "--apply takes the remedies of all root findings",
                    got="--select or --ignore, which leave some of them out",
                    do="leave --select and --ignore out",
                )
            found = diagnose(task, run_dir=run_dir, seed=seed, budget=budget)
            plain = found.to_json()
            if report is not None:
                found.report(report)
            plain["findings"] = [
                finding
                for finding in plain["findings"]
                if finding["code"] not in without and (not only or finding["code"] in only)
            ]
            if as_json:
                typer.echo(to_strict_json(plain, indent=2))
            else:
                print_diagnosis(plain)
            if apply is not None:
                if found.treated is not None:
                    found.apply(apply)
                if plain["treated"] is None and plain["interrupted"]:
                    typer.echo(f"nothing written to {apply}: it was interrupted before", err=True)
                else:
                    print_applied(plain["treated"], apply, error=as_json)
            if plain["interrupted"]:
                raise typer.Exit(INTERRUPTED)
            if any(finding["severity"] != "info" for finding in plain["findings"]):
                raise typer.Exit(FOUND)

    @app.command("explain", cls=command)
    def explain_command(
        code: Annotated[
            str | None,
            typer.Argument(metavar="CODE", help="A code or a name.", show_default=False),
        ] = None,
    ) -> None:
        """Explain a finding: what it means, how it is measured, remedies, when it is a false alarm."""
        with reported():
            from rich.console import Console
            from rich.markdown import Markdown

            from ravine.diagnose import CODES, explain

            if code is None:
                for name, known in CODES.items():
                    typer.echo(f"{known:16} {name}")
            elif sys.stdout.isatty():
                Console().print(Markdown(explain(code)))
            else:
                typer.echo(explain(code), nl=False)


def _codes(given: list[str] | None) -> set[str]:
    """Return the codes of codes and names, separated by commas or repeated."""
    from ravine.diagnose import CODES
    from ravine.errors import unknown_name

    words = [word.strip() for text in given or [] for word in text.split(",") if word.strip()]
    codes = {CODES.get(word, word.upper()) for word in words}
    for word in words:
        if CODES.get(word, word.upper()) not in CODES.values():
            raise unknown_name("finding", word, [*CODES.values(), *CODES])
    return codes


def print_applied(treated: Mapping[str, Any] | None, path: Path, *, error: bool = False) -> None:
    """Print what was written, and what has to be made by hand.

    Args:
        treated: the treated program of the diagnosis's JSON, or None.
        path: of the file.
        error: print on stderr: stdout is for JSON alone.
    """
    if treated is None:
        typer.echo(f"nothing written to {path}: no remedy of a root finding helped", err=error)
        return
    says = ", ".join(treated["settings"])
    if says:
        typer.echo(f"{path}: {says}. ravine train {treated['task']} --config {path}", err=error)
    else:
        typer.echo(f"{path}: no configuration can say it; what to do is there as words", err=error)
    for one in treated["remedies"]:
        if one["by_hand"]:
            where = f" (seen in {one['where']})" if one["where"] else ""
            typer.echo(f"by hand, for {one['code']}: {one['trial']['remedy']}{where}", err=error)
    if treated["unproved"]:
        typer.echo(f"not proved in this form: {treated['unproved']}", err=error)
    for words in treated["left_out"]:
        typer.echo(f"left out: {words}", err=error)


def _beside(trial: Mapping[str, Any]) -> str:
    if not trial["control"]:
        return ""
    reached = ", ".join(f"{value:.3g}" for value in trial["control"])
    return f"; control, {trial['control_remedy']}: {reached}"


def print_diagnosis(plain: Mapping[str, Any]) -> None:
    """Print the JSON of a diagnosis as lines, the root cause first."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    for note in plain["notes"]:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for finding in plain["findings"]:
        line = Text.assemble(
            (finding["code"], f"bold {_COLOURS[finding['severity']]}"),
            f" {finding['severity']}, {finding['confidence']} confidence: ",
            (finding["name"], "bold"),
            f" {finding['where']}" if finding["where"] else "",
            "" if finding["root"] else "  (a consequence, or a second cause)",
        )
        console.print(line, soft_wrap=True)
        console.print(Text(f"  {finding['says']}"), soft_wrap=True)
        for trial in finding["treatments"]:
            if trial["before"]:
                numbers = ", ".join(
                    f"{before:.3g} to {after:.3g}"
                    for before, after in zip(trial["before"], trial["after"], strict=True)
                )
                word = "helps" if trial["helped"] else "does not help"
                says = f"  {trial['remedy']}: {word} ({trial['measure']} {numbers}{_beside(trial)})"
                console.print(Text(says), soft_wrap=True)
    if plain["findings"]:
        for drawing in plain["drawings"]:
            if drawing["kind"] != "curves":
                console.print(Text(f"{drawing['title']}: {drawing['summary']}"), soft_wrap=True)
    else:
        words = {
            "healthy": "no problem found",
            "unclear": "something is wrong, and no cause could be proved",
        }
        console.print(f"{plain['name']}: {words.get(plain['verdict'], plain['verdict'])}")
        if plain["ruled_out"]:
            console.print(Text("ruled out: " + ", ".join(plain["ruled_out"])), soft_wrap=True)
