"""What can go wrong, one exception each.

Every message has the same shape: what failed, where, what came, what was expected, what to do.
Each class also derives from the built-in exception that Python programmers would catch for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RavineError(Exception):
    """Base of every error that Ravine raises on purpose."""

    def __init__(
        self, what: str, *, where: str = "", got: str = "", expected: str = "", do: str = ""
    ) -> None:
        self.what = what
        parts = [("where", where), ("got", got), ("expected", expected), ("do", do)]
        lines = [what]
        for label, text in parts:
            if text:
                lines.append(f"  {label + ':':<10}{text.replace(chr(10), chr(10) + ' ' * 12)}")
        super().__init__("\n".join(lines))


class ArgumentError(RavineError, ValueError):
    """An argument has a value that cannot be used."""


class ArgumentTypeError(RavineError, TypeError):
    """An argument has a type that cannot be used."""


class ShapeError(RavineError, ValueError):
    """Shapes do not fit each other, or would broadcast by accident."""


class TargetError(RavineError, ValueError):
    """A target lies outside of what the loss is defined for."""


class UnknownNameError(RavineError, LookupError):
    """A name is not among the known ones."""


class UnknownOptionError(RavineError, TypeError):
    """A keyword is not among those that are taken."""


class ExpressionError(RavineError, ValueError):
    """A written choice such as ``adam(lr=1e-3)`` cannot be read."""


class EquationError(RavineError, TypeError):
    """An update rule or loss equation uses something that cannot be run over tensors."""


class ConfigError(RavineError, ValueError):
    """A configuration, in a file or set on the command line, cannot be used."""


class TaskError(RavineError, ValueError):
    """A task, or the file that defines it, cannot be used."""


class DataError(RavineError, ValueError):
    """Data, or a file that holds it, cannot be read or trained on."""


class NonFiniteError(RavineError, ArithmeticError):
    """Training reached numbers that are NaN or infinite, or a loss that runs away.

    Attributes:
        step: where that was seen, counted from 1; None for a loss that ran away over epochs.
    """

    step: int | None = None


class UndecidedError(RavineError, ValueError):
    """A measurement was made, and does not decide what was asked."""


class RunDirectoryError(RavineError, OSError):
    """A run directory cannot be written or read."""


class CheckpointError(RavineError, OSError):
    """A checkpoint cannot be written, or there is none that can be read."""


class DistributedError(RavineError, RuntimeError):
    """Processes that train together cannot go on, because of one of them."""


class ResumeError(RavineError, ValueError):
    """A run cannot go on with what it is given now."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end; it ended after a whole step.

    Attributes:
        signal: the signal's name, such as "SIGTERM".
    """

    def __init__(self, signal: str) -> None:
        super().__init__(signal)
        self.signal = signal


class HookError(RavineError):
    """A function of the user's own, called by training, raised an error."""


class MissingPackageError(RavineError, ImportError):
    """An option needs a package that is not installed."""


class BackendWarning(UserWarning):
    """A faster way to run an equation is not available; a slower one is used."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, where: str = ""
) -> UnknownNameError:
    """Build the error for a name that is not among the known ones of its kind."""
    names = sorted(known)
    return UnknownNameError(
        f"unknown {kind} {name!r}",
        where=where,
        expected="one of " + ", ".join(names),
        do=nearest(name, names),
    )


def taken_name(owner: str, name: str, taken: Iterable[str]) -> EquationError:
    """Build the error for a name of an equation that means something else already."""
    return EquationError(
        f"{owner} has the parameter {name!r}",
        expected="a name that is not taken",
        do="call it otherwise; taken are " + ", ".join(sorted(taken)),
    )


def unknown_option(
    owner: str, name: str, known: Iterable[str], *, where: str = ""
) -> UnknownOptionError:
    """Build the error for a keyword that ``owner`` does not take."""
    names = list(known)
    return UnknownOptionError(
        f"{owner} has no option {name!r}",
        where=where,
        expected="one of " + ", ".join(names),
        do=nearest(name, names),
    )
