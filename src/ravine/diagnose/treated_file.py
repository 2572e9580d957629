"""The treated configuration as a file: TOML that ``ravine train TASK --config FILE`` takes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ravine.diagnose.treated import Remedy, Treated
from ravine.errors import ArgumentError, RunDirectoryError
from ravine.training.config.toml import to_comment, to_toml

__all__ = ["text_of", "write"]


def text_of(treated: Treated, ravine: str = "") -> str:
    """Return the text of the file.

    What no configuration can say is a comment: what to change, where, and what it brought.
    """
    lines = [
        to_comment(
            f"The treated configuration of {treated.task}, by ravine diagnose {ravine}".rstrip()
        ),
        to_comment(f"Run it: ravine train {treated.task} --config FILE"),
    ]
    if treated.before:
        lines.append(
            to_comment(
                f"Replayed as it stands here: {treated.measure} {_numbers(treated.before)} without, "
                f"{_numbers(treated.after)} with it"
            )
        )
    else:
        lines.append(
            to_comment(f"Not proved in this form: {treated.unproved}. The remedy was, by itself.")
        )
    if treated.by_hand and treated.settings:
        lines.append("# That is with the changes by hand below: without them it was not replayed.")
    taken = [one for one in treated.remedies if one.settings]
    if taken:
        lines.append("")
        for one in taken:
            lines += _remedy(one)
    if treated.settings:
        lines.append("")
        lines += [f"{name} = {to_toml(value)}" for name, value in treated.settings.items()]
    if treated.by_hand:
        lines += ["", "# To be made by hand: no configuration can say it."]
        for one in treated.by_hand:
            lines += _remedy(one)
    if treated.left_out:
        lines += ["", "# Not taken over, though it helped by itself:"]
        lines += [to_comment(f"  {words}") for words in treated.left_out]
    return "\n".join(lines) + "\n"


def _remedy(one: Remedy) -> list[str]:
    where = f" Seen in {one.where}." if one.where else ""
    seeds = len(one.trial.before)
    reached = (
        f"{one.trial.measure} by itself, over {seeds} seed{'s' * (seeds > 1)}: "
        f"{_numbers(one.trial.before)} without, {_numbers(one.trial.after)} with it"
    )
    control = f"; {_numbers(one.trial.control)} with a control" if one.trial.control else ""
    return [
        to_comment(f"{one.code} {one.name}: {one.trial.remedy}.{where}"),
        to_comment(f"  {reached}{control}"),
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def write(text: str, path: Path) -> Path:
    """Write the file; one that is there already is left alone, and an error unless it is the same.

    Raises:
        ArgumentError: the file holds something else.
        RunDirectoryError: it cannot be written or read.
    """
    data = text.encode("utf-8")
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            if path.read_bytes() == data:
                return path
            raise ArgumentError(
                "there is a file of that name, and it holds something else",
                where=str(path),
                expected="a new file: what is yours is never changed",
                do="name another file, or take that one away",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise RunDirectoryError(
            "the treated configuration cannot be written",
            where=str(path),
            got=error.strerror or str(error),
            do="name a file in a folder that can be written to",
        ) from error
    return path
