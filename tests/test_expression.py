"""The reader of written choices: what it makes. What it refuses is in test_expression_errors."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravine.errors import ExpressionError
from ravine.expression import parse
from ravine.schedules import SCHEDULES, cosine, warmup


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


NAMES: dict[str, Any] = {
    **SCHEDULES,
    "huber": Huber,
    "adam": partial(AdamLike, ["the parameters"]),
    "record": record,
    "sgd": sgd,
    "positional_only": positional_only,
    "integer": int,
    "biggest": max,
}


# What it makes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("huber", Huber()),
        ("huber()", Huber()),
        ("huber(2)", Huber(2)),
        ("huber(delta=2)", Huber(2)),
        ("  huber( 2,reduction = 'sum', )  # a comment", Huber(2, "sum")),
        ("\n\thuber\n", Huber()),
        ("huber(\n    delta=2,\n)", Huber(2)),
        ("sgd(lr=cosine(10, peak=1))", (cosine(10, peak=1.0), 0.0)),
        ("sgd(lr=warmup(5) >> cosine(9, peak=1e-3))", (warmup(5) >> cosine(9, peak=1e-3), 0.0)),
        ("warmup(5) >> 0.1", warmup(5) >> 0.1),
        ("warmup(1) >> (cosine(2, 1) >> cosine(3, 1))", warmup(1) >> cosine(2, 1) >> cosine(3, 1)),
        ("record(huber, [huber(3), 1])", ((Huber(), [Huber(3), 1]), {})),
        ("record(-1, +2, -1.5e-3, 'a' \"b\", True, False, None)", None),
        ("record((1, 2), [3], (), [], x=(0.9, 0.999))", None),
        ("positional_only(1, b=2)", (1, 2)),
        ("integer('12')", 12),
        ("biggest(1, 3)", 3),
        ("0.25", 0.25),
        ("-3", -3),
        ("(0.9, 0.999)", (0.9, 0.999)),
    ],
)
def test_what_it_makes(text: str, value: Any) -> None:
    if value is None:
        value = eval(text, {"record": record})
    made = parse(text, NAMES)
    assert made == value
    assert type(made) is type(value)


def test_partial_hides_the_leading_argument() -> None:
    made = parse("adam(1e-2, betas=(0.8, 0.9))", NAMES)
    assert (made.params, made.lr, made.betas) == (["the parameters"], 1e-2, (0.8, 0.9))
    with pytest.raises(ExpressionError, match="expected: one of lr, betas"):
        parse("adam(params=1)", NAMES)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple),
    max_leaves=8,
)


@given(st.lists(json_like, max_size=3), st.dictionaries(st.sampled_from("abc"), json_like))
def test_reads_what_repr_writes(args: list[Any], options: dict[str, Any]) -> None:
    written = [repr(a) for a in args] + [f"{name}={value!r}" for name, value in options.items()]
    assert parse(f"record({', '.join(written)})", NAMES) == (tuple(args), options)


@given(st.text(alphabet="huberadmsgd()=,>.-+*/'\" \n\t01e[]{}:é世\0", max_size=25))
def test_any_text_gives_a_value_or_an_expression_error(text: str) -> None:
    try:
        parse(text, NAMES)
    except ExpressionError as error:
        assert str(error)


def test_nothing_is_called_before_its_arguments_fit() -> None:
    calls: list[str] = []
    names = {"log": lambda word="": calls.append(word), "f": lambda a: a}
    with pytest.raises(ExpressionError, match="f has no option 'b'"):
        parse("f(log('called'), b=1)", names)
    assert calls == []


def test_source_never_evaluates() -> None:
    import ravine.expression as module

    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:  # noqa: PTH123
        tree = ast.parse(file.read())
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not called & {"eval", "exec", "compile", "getattr", "__import__"}
