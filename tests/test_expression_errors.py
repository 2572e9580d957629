"""What the reader of written choices refuses, and where it puts the caret."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from ravine.errors import ArgumentError, ArgumentTypeError, ExpressionError
from ravine.expression import parse
from ravine.schedules import SCHEDULES

GRAMMAR = "a name, a call such as huber(delta=2), a literal, or two of them joined by >>"


@dataclass(frozen=True)
class Huber:
    delta: float = 1.0
    reduction: str = "mean"


class AdamLike:
    def __init__(self, params: Any, lr: float = 1e-3, *, betas: Any = (0.9, 0.999)) -> None:
        self.params, self.lr, self.betas = params, lr, betas


def record(*args: Any, **options: Any) -> tuple[Any, ...]:
    return args, options


def sgd(lr: Any = 0.1, *, momentum: float = 0.0) -> tuple[Any, float]:
    return lr, momentum


def positional_only(a: int, /, b: int = 0) -> tuple[int, int]:
    return a, b


def no_arguments() -> str:
    return "none"


def refuses(value: float = 0) -> None:
    raise ValueError("value must not be used")


NAMES: dict[str, Any] = {
    **SCHEDULES,
    "huber": Huber,
    "adam": partial(AdamLike, ["the parameters"]),
    "record": record,
    "sgd": sgd,
    "cross_entropy": Huber,
    "positional_only": positional_only,
    "no_arguments": no_arguments,
    "refuses": refuses,
}


def message(text: str, **options: Any) -> str:
    with pytest.raises(ExpressionError) as caught:
        parse(text, NAMES, **options)
    return str(caught.value)


def underlined(text: str) -> str:
    """The part of the shown line that has carets under it."""
    lines = message(text).split("\n")
    index = next(i for i, line in enumerate(lines) if line.strip() and set(line.strip()) == {"^"})
    start, end = lines[index].index("^"), lines[index].rindex("^") + 1
    return lines[index - 1][start:end]


def test_unknown_name_at_the_outside() -> None:
    assert message("adm(lr=1)", kind="optimizer") == (
        "unknown optimizer 'adm'\n"
        "  where:    adm(lr=1)\n"
        "            ^^^\n"
        f"  expected: one of {', '.join(sorted(NAMES))}\n"
        "  do:       did you mean 'adam'?"
    )


@pytest.mark.parametrize(
    ("text", "do"),
    [
        ("SGD", "did you mean 'sgd'?"),
        ("sgd(lr=cosin(900))", "did you mean 'cosine'?"),
        ("huber(reduction=zzz)", "a text needs quotes: 'zzz'"),
        ("cross-entropy", "did you mean 'cross_entropy'?"),
        ("torch.optim.Adam(lr=1)", "did you mean 'adam'?"),
        ("sgd(lr=1/3)", "write the number out"),
        ("sgd(lr==1)", "join schedules with >>, give an option with ="),
        ("warmup(1) > cosine(1, 1)", "join schedules with >>, give an option with ="),
    ],
)
def test_advice(text: str, do: str) -> None:
    assert message(text).endswith(f"  do:       {do}")


def test_what_is_meant_for_arguments_is_not_listed_at_the_outside() -> None:
    names = {"adam": sgd, "sgd": sgd}
    with pytest.raises(ExpressionError) as caught:
        parse("cosin(9)", names, kind="optimizer", inside=SCHEDULES)
    assert str(caught.value) == (
        "unknown optimizer 'cosin'\n"
        "  where:    cosin(9)\n"
        "            ^^^^^\n"
        "  expected: one of adam, sgd"
    )
    with pytest.raises(ExpressionError, match="did you mean 'cosine'"):
        parse("sgd(lr=cosin(9))", names, kind="optimizer", inside=SCHEDULES)
    assert parse("sgd(lr=constant(0.5))", names, inside=SCHEDULES)[0](0) == 0.5


def test_inner_unknown_name_is_not_called_an_optimizer() -> None:
    assert message("sgd(lr=cosin(9))", kind="optimizer").startswith("unknown name 'cosin'\n")


def test_misspelt_keyword() -> None:
    assert message("sgd(lr=cosine(900, paek=1e-3), momentum=0.9)") == (
        "cosine has no option 'paek'\n"
        "  where:    sgd(lr=cosine(900, paek=1e-3), momentum=0.9)\n"
        "                               ^^^^\n"
        "  expected: one of steps, peak, end\n"
        "  do:       did you mean 'peak'?"
    )


def test_missing_arguments() -> None:
    assert message("sgd(lr=cosine)") == (
        "cosine needs steps and peak\n"
        "  where:    sgd(lr=cosine)\n"
        "                   ^^^^^^\n"
        "  expected: cosine(steps, peak, end=0.0)"
    )


def test_too_many_positional_arguments() -> None:
    assert message("sgd(0.1, 0.9)") == (
        "sgd takes 1 positional argument\n"
        "  where:    sgd(0.1, 0.9)\n"
        "                     ^^^\n"
        "  got:      2\n"
        "  expected: sgd(lr=0.1, *, momentum=0.0)"
    )


def test_error_of_the_callee_keeps_its_message() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("sgd(lr=cosine(900, peak=-1))", NAMES)
    assert str(caught.value) == (
        "peak of cosine is out of range\n"
        "  got:      -1.0\n"
        "  expected: a finite number, at least 0\n"
        "  where:    sgd(lr=cosine(900, peak=-1))\n"
        "                   ^^^^^^^^^^^^^^^^^^^^"
    )
    assert caught.value.what == "peak of cosine is out of range"
    assert isinstance(caught.value.__cause__, ArgumentError)


def test_error_of_a_callee_of_another_library() -> None:
    assert message("refuses") == (
        "value must not be used\n  where:    refuses\n            ^^^^^^^"
    )


def test_joining_an_endless_schedule() -> None:
    assert message("constant(0.1) >> warmup(5)") == (
        "constant(0.1) never ends, so nothing can follow it\n"
        "  got:      constant(0.1) >> warmup(5)\n"
        "  expected: a schedule with a length on the left of >>\n"
        "  do:       give it a length: constant(0.1, steps=...)\n"
        "  where:    constant(0.1) >> warmup(5)\n"
        "            ^^^^^^^^^^^^^^^^^^^^^^^^^^"
    )


def test_joining_what_cannot_be_joined() -> None:
    assert message("sgd(lr='a' >> 2)") == (
        ">> cannot join these two\n"
        "  where:    sgd(lr='a' >> 2)\n"
        "                   ^^^^^^^^\n"
        "  got:      'a' >> 2\n"
        "  expected: two schedules, such as warmup(100) >> cosine(900, peak=1e-3)"
    )
    assert message("8 >> 1").startswith(">> cannot join these two")  # no shifting of bits


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sgd(lr=1, lr=2)", "lr"),
        ("sgd(1, lr=2)", "lr"),
        ("positional_only(b=2)", "positional_only"),
        ("positional_only(a=2)", "a"),
        ("no_arguments(1)", "1"),
        ("no_arguments(one=1)", "one"),
        ("sgd(**{})", "**"),
        ("sgd(*[1])", "*[1]"),
        ("record([*[1]])", "*[1]"),
        ("record(lambda: 1)", "lambda: 1"),
        ("record([x for x in y])", "[x for x in y]"),
        ("record({'a': 1})", "{'a': 1}"),
        ("record({1})", "{1}"),
        ("record(b'a')", "b'a'"),
        ("record(1j)", "1j"),
        ("record(...)", "..."),
        ("record(f'{sgd}')", "f'{sgd}'"),
        ("record(1 + 1)", "1 + 1"),
        ("record(2 ** 9)", "2 ** 9"),
        ("record(1 << 9)", "1 << 9"),
        ("record(- - 1)", "- - 1"),
        ("record(-True)", "-True"),
        ("record(~1)", "~1"),
        ("record(not 1)", "not 1"),
        ("record(1 if 1 else 2)", "1 if 1 else 2"),
        ("record((a := 1))", "a := 1"),
        ("record(sgd.lr)", "sgd.lr"),
        ("record(sgd[0])", "sgd[0]"),
        ("sgd(1)(2)", "sgd(1)(2)"),
        ("sgd(1).__class__", "sgd(1).__class__"),
        ("__import__('os').system('true')", "__import__('os').system"),
        ("record(__import__('os'))", "__import__"),
        ("record(open)", "open"),
        ("record('é世', 'é', oops=1, **{})", "**"),
        ("record('é世', oops)", "oops"),
        ("record('a\\tb',\toops)", "oops"),
        ("sgd(\n  lr=1,\n  lrr=2)", "lrr"),
        ("record(huber(\n  delta=1,\n  reductoin=2))", "reductoin"),
    ],
)
def test_caret_stands_under_the_place(text: str, place: str) -> None:
    assert underlined(text) == place


def test_caret_under_a_call_over_several_lines_ends_with_its_first() -> None:
    assert underlined("record(1, cosine(900,\n  peak=-1))") == "cosine(900,"


@pytest.mark.parametrize(
    ("text", "column"),
    [("sgd(lr=1", 3), ("sgd(lr=1))", 9), ("sgd lr=1", 4), ("sgd(\n  1;)", 3)],
)
def test_syntax_errors_have_a_caret(text: str, column: int) -> None:
    lines = message(text, kind="optimizer").split("\n")
    assert lines[0].startswith("cannot read this optimizer: ")
    assert lines[2] == " " * (12 + column) + "^"
    assert lines[-1] == f"  expected: {GRAMMAR}"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty(text: str) -> None:
    assert message(text, kind="loss") == f"the loss is empty\n  expected: {GRAMMAR}"


@pytest.mark.parametrize(
    "text",
    ["-" * 50_000 + "1", "(" * 500 + "1" + ")" * 500, "0.1 >> " * 20_000 + "1", "9" * 5000, "a\0b"],
    ids=["minus", "parentheses", "joins", "digits", "null"],
)
def test_texts_that_trouble_the_parser_of_python(text: str) -> None:
    assert message(text).startswith("cannot read this name: ")


def test_a_null_byte_and_a_warning_stay_silent(recwarn: pytest.WarningsRecorder) -> None:
    message("1(2)")
    assert not recwarn.list


@pytest.mark.parametrize("text", [None, 1, b"sgd", ["sgd"]])
def test_not_a_text(text: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="an expression is written as text"):
        parse(text, NAMES)
