"""`ravine list`: names, meanings and formulas out of docstrings."""

from __future__ import annotations

from typing import Any

import pytest

from ravine.cli.listing import describe, print_list
from ravine.errors import UnknownNameError


def falling(lr: float, rate: float = 0.5) -> None:
    """The rate falls.

    Further words.

    Equation:
        lr(t) = lr exp(-rate t)
          and so on

    Args:
        lr: a rate.
    """


def inline(input: object, target: object, *, delta: float = 1.0) -> None:
    """Squared near 0.

    Equation: e^2 / 2
    """


class Below:
    """The same at every step.

        lr(t) = lr

    Args:
        lr: a rate.
    """


def words_only(seed: int) -> None:
    """Classify digits.

    >>> 1 + 1
    2
    """


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (falling, ("The rate falls.", ["lr(t) = lr exp(-rate t)", "  and so on"])),
        (inline, ("Squared near 0.", ["e^2 / 2"])),
        (Below, ("The same at every step.", ["lr(t) = lr"])),
        (words_only, ("Classify digits.", [])),
        (lambda: None, ("", [])),
    ],
)
def test_meaning_and_formula_come_from_the_docstring(thing: Any, expected: Any) -> None:
    assert describe(thing) == expected


def test_list_shows_names_options_meanings_and_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"optimizers": {"falling": falling}, "losses": {"inline": inline}}
    sources = {**kinds, "schedules": {}, "regularizers": {}, "tasks": {"digits": words_only}}
    print_list(None, sources)
    text = capsys.readouterr().out
    assert "falling(lr, rate=0.5)\n    The rate falls.\n      lr(t) = lr exp(-rate t)" in text
    assert "inline(delta=1.0)\n    Squared near 0.\n      e^2 / 2" in text
    assert "  digits\n    Classify digits." in text
    print_list("losses", sources)
    assert "falling" not in capsys.readouterr().out


def test_list_refuses_an_unknown_kind() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tasks'"):
        print_list("task", {})
