"""What can be asked for, and its limits."""

from __future__ import annotations

from typing import Any, Literal

from ravine.errors import ArgumentError, nearest

__all__ = ["NONFINITE", "ROLLBACKS", "SKIPS", "Nonfinite", "check_policy"]

Nonfinite = Literal["stop", "skip", "rollback"]
NONFINITE = ("stop", "skip", "rollback")

SKIPS = 10
"""Steps in a row that may be left out; the next one ends the run."""

ROLLBACKS = 5
"""How often a run goes back; the next time ends it."""


def check_policy(value: Any) -> Nonfinite:
    """Return an argument ``nonfinite``.

    Raises:
        ArgumentError: it is none of the policies.
    """
    if isinstance(value, str) and value in NONFINITE:
        return value  # type: ignore[return-value]
    raise ArgumentError(
        "nonfinite cannot be used",
        got=repr(value),
        expected="one of " + ", ".join(NONFINITE),
        do=nearest(value, NONFINITE) if isinstance(value, str) else "",
    )
