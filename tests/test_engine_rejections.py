"""What an equation may not be written with, and what is said about it."""

from __future__ import annotations

import math

import pytest
import torch

import ravine
from ravine.engine.functions import maximum, sqrt, where
from ravine.errors import EquationError


def tried(function, **options):
    """Step once with a rule, compiled."""
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    w.grad = torch.ones(3, dtype=torch.float64)
    ravine.update_rule(function)([w], lr=0.1, backend="cpu", **options).step()


def helper(x):
    return x


def for_loop(w, g, *, lr):
    for _ in range(3):
        w = w - lr * g
    return w


def while_loop(w, g, *, lr):
    while lr > 1:
        lr = lr / 2
    return w - lr * g


def with_lambda(w, g, *, lr):
    f = lambda x: x * x  # noqa: E731
    return w - lr * f(g)


def if_on_tensor(w, g, *, lr):
    if g > 0:
        return w - lr * g
    return w


def conditional_on_tensor(w, g, *, lr):
    return w - lr * (g if g > 0 else 0.0)


def if_on_t(w, g, *, t, lr):
    if t == 1:
        return w
    return w - lr * g


def unknown_function(w, g, *, lr):
    return w - lr * helper(g)


def unknown_method(w, g, *, lr):
    return w - lr * g.sqrt()


def unknown_of_module(w, g, *, lr):
    return w - lr * math.gamma(g)


def unknown_name(w, g, *, lr):
    return w - lr * missing * g  # noqa: F821


def chained(w, g, *, lr):
    return where(0 < g < 1, w, w - lr * g)


def membership(w, g, *, lr):
    return where(g in (1, 2), w, w - lr * g)


def with_and(w, g, *, lr):
    return where(g > 0 and w > 0, w, w - lr * g)


def with_not(w, g, *, lr):
    return where(not g, w, w - lr * g)


def remainder(w, g, *, lr):
    return w - lr * (g % 2)


def subscript(w, g, *, lr):
    return w - lr * g[0]


def keyword_call(w, g, *, lr):
    return w - lr * sqrt(x=g)


def starred(w, g, *, lr):
    return w - lr * maximum(*(g, w))


def too_many_arguments(w, g, *, lr):
    return w - lr * max(g, w, 0.0)


def too_few_arguments(w, g, *, lr):
    return w - lr * max(g)


def two_targets(w, g, *, lr):
    a = b = g
    return w - lr * a * b


def unpacked_tensor(w, g, *, lr):
    a, b = g
    return w - lr * a * b


def comprehension(w, g, *, lr):
    return w - lr * sum([g for _ in range(2)])


def bare_return(w, g, *, lr):
    return


def no_return(w, g, *, lr):
    w = w - lr * g


def assert_statement(w, g, *, lr):
    assert lr > 0
    return w - lr * g


def function_assigned(w, g, *, lr):
    sqrt = g * g
    return w - lr * sqrt


def conditions_added(w, g, *, lr):
    return w - lr * ((g > 0) + (w > 0))


LOCAL = {name: value for name, value in globals().items() if callable(value)}

REJECTED = {
    "for_loop": "has a For statement",
    "while_loop": "has a While statement",
    "with_lambda": "has 'lambda x: x * x'",
    "if_on_tensor": "has an if on a tensor's elements",
    "conditional_on_tensor": "has an if on a tensor's elements",
    "if_on_t": "has an if on t, which changes from step to step",
    "unknown_function": "calls helper, which is not known to the engine",
    "unknown_method": "calls g.sqrt, which is not known to the engine",
    "unknown_of_module": "calls math.gamma, which is not known to the engine",
    "unknown_name": "uses the unknown name 'missing'",
    "chained": "has '0 < g < 1', which cannot be computed element by element",
    "membership": "has 'g in (1, 2)', which cannot be computed element by element",
    "with_and": "has 'g > 0 and w > 0', which cannot be computed element by element",
    "with_not": "has 'not g', which cannot be computed element by element",
    "remainder": "has 'g % 2', which cannot be computed element by element",
    "subscript": "has 'g[0]', which cannot be computed element by element",
    "keyword_call": "calls sqrt with keywords",
    "starred": "has '*(g, w)'",
    "too_many_arguments": "calls maximum with 3 arguments; it takes 2",
    "too_few_arguments": "calls maximum with 1 arguments; it takes 2",
    "two_targets": "has a Assign statement",
    "unpacked_tensor": "assigns to (a, b)",
    "comprehension": "has '[g for _ in range(2)]'",
    "bare_return": "returns nothing",
    "no_return": "does not end with a return",
    "assert_statement": "has a Assert statement",
    "function_assigned": "assigns to 'sqrt', a name that the engine uses itself",
    "conditions_added": "has arithmetic between two conditions",
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_with_the_place(name):
    with pytest.raises(EquationError) as caught:
        tried(LOCAL[name])
    message = str(caught.value)
    assert message.startswith(f"equation {name!r}: {REJECTED[name]}")
    assert "test_engine_rejections.py, line " in message
    shown, caret = message.split("got:      ")[1].splitlines()[:2]
    assert caret.strip() == "^"
    assert caret.index("^") - 12 < len(shown)


def test_the_line_and_the_caret_are_those_of_the_mistake():
    with pytest.raises(EquationError) as caught:
        tried(unknown_name)
    first = unknown_name.__code__.co_firstlineno
    assert f"line {first + 1}\n" in str(caught.value)
    lines = str(caught.value).splitlines()
    (code,) = (k for k, line in enumerate(lines) if "missing * g" in line)
    assert lines[code + 1].index("^") == lines[code].index("missing")


def loop_on_request(w, g, *, lr, loop=False):
    if loop:
        for _ in range(3):
            w = w - lr * g
    return w - lr * g


def test_a_rejected_rule_is_rejected_when_it_is_made():
    with pytest.raises(EquationError, match="For statement"):
        ravine.update_rule(for_loop)


def test_a_branch_that_is_rejected_is_so_at_every_step_that_takes_it():
    w = torch.nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    optimizer = ravine.update_rule(loop_on_request)([w], lr=0.1, loop=True)
    for _ in range(2):
        with pytest.raises(EquationError, match="For statement"):
            optimizer.step()
    assert w.tolist() == [1.0, 1.0, 1.0]


def too_few_returned(w, g, m, *, lr):
    return w - lr * g


def too_many_returned(w, g, *, lr):
    return w - lr * g, g


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_number_of_returned_values(backend):
    w = torch.nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    for function, message in (
        (too_few_returned, "'too_few_returned' returns 1 value\n  expected: 2: w, m\n"),
        (too_many_returned, "'too_many_returned' returns 2 values\n  expected: 1: w\n"),
    ):
        with pytest.raises(EquationError) as caught:
            ravine.update_rule(function)([w], lr=0.1, backend=backend).step()
        assert message in str(caught.value)


def signature(text):
    scope: dict = {}
    exec(f"def rule({text}): return w", scope)
    return scope["rule"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("*, lr", "update rule 'rule' takes 0 tensors"),
        ("w, *, lr", "update rule 'rule' takes 1 tensors"),
        ("w, g=1, *, lr", "equation 'rule' has the parameter 'g=1'"),
        ("w, g, /, *, lr", "equation 'rule' has the parameter"),
        ("w, *args, lr", "equation 'rule' has the parameter '*args'"),
        ("w, g, *, lr, **rest", "equation 'rule' has the parameter '**rest'"),
        ("x, y, w, *, lr", "update rule 'rule' has a state called 'w'"),
        ("w, grad, g, *, lr", "update rule 'rule' has a state called 'g'"),
        ("w, g, average, *, lr", "update rule 'rule' has a state called 'average'"),
        ("w, g, step, *, lr", "update rule 'rule' keeps a state under the name 'step'"),
        ("w, g, sqrt, *, lr", "equation 'rule' has the parameter 'sqrt'"),
        ("w, g, *, lr, exp=2", "equation 'rule' has the parameter 'exp'"),
    ],
)
def test_signatures(text, message):
    with pytest.raises(EquationError) as caught:
        ravine.update_rule(signature(text))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_names": {"v": "velocity"}}, "has no state v"),
        ({"initial": {"v": 1.0}}, "has no state v"),
        ({"state_names": {"m": "step"}}, "keeps a state under the name 'step'"),
        ({"state_names": {"m": "n"}}, "keeps a state under the name 'n'"),
    ],
)
def test_names_of_state(options, message):
    with pytest.raises(EquationError, match=message):
        ravine.update_rule(**options)(signature("w, g, m, n, *, lr"))


@pytest.mark.parametrize("thing", [len, print, object(), torch.nn.Linear, "def f(w, g): return w"])
def test_only_functions_are_equations(thing):
    with pytest.raises(EquationError, match="an equation must be a plain Python function"):
        ravine.update_rule(thing)
