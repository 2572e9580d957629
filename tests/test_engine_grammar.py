"""Equations drawn from the grammar: the compiled kernel against the function itself."""

from __future__ import annotations

import math

from engine_agreement import agree, two
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ravine.engine.functions import (
    FUNCTIONS,
)

ATOMS = [
    "w",
    "g",
    "lr",
    "a",
    "t",
    "HALF",
    "COUNT",
    "2",
    "3.0",
    "0.1",
    "-1",
    "1e-3",
    "pair[0]",
    "math.pi",
]


def _combined(inner):
    pairs = st.tuples(inner, inner)
    return st.one_of(
        st.builds("({0[0]} {1} {0[1]})".format, pairs, st.sampled_from("+-*")),
        st.builds("({0[0]} / (abs({0[1]}) + 0.5))".format, pairs),
        st.builds("({0})**{1}".format, inner, st.sampled_from(["2", "3", "4", "2.0", "1"])),
        st.builds(
            "(abs({0}) + 0.5)**{1}".format, inner, st.sampled_from(["0.5", "-1", "a", "1.5"])
        ),
        st.builds("-{0}".format, inner),
        st.builds("{1}({0})".format, inner, st.sampled_from(["tanh", "sigmoid", "abs"])),
        st.builds("sqrt(abs({0}))".format, inner),
        st.builds("log1p(abs({0}))".format, inner),
        st.builds("exp(-abs({0}))".format, inner),
        st.builds("{1}({0[0]}, {0[1]})".format, pairs, st.sampled_from(["max", "minimum"])),
        st.builds(
            "where(({0[0]} {1} {0[1]}) {2} (w > HALF), {0[1]}, w)".format,
            st.tuples(st.sampled_from(ATOMS), inner),
            st.sampled_from(["<", ">=", "!="]),
            st.sampled_from("&|"),
        ),
        st.builds("({0[0]} if a > 0.5 else {0[1]})".format, pairs),
    )


EXPRESSIONS = st.recursive(st.sampled_from(ATOMS), _combined, max_leaves=6)


@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(EXPRESSIONS, min_size=12, max_size=12))
def test_expressions_drawn_from_the_grammar(tmp_path_factory, expressions):
    folder = tmp_path_factory.mktemp("drawn")
    text = "def drawn(w, g, *, t, lr, a, pair):\n    return (\n"
    text += "".join(f"        {e} + 0 * w,\n" for e in expressions) + "    )\n"
    path = folder / "drawn.py"
    path.write_text(text)
    scope = dict(FUNCTIONS) | {"math": math, "HALF": 0.5, "COUNT": 3}
    scope.pop("abs")
    exec(compile(text, str(path), "exec"), scope)
    agree(scope["drawn"], two(count=50), rtol=1e-11)
