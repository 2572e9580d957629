"""Expressions in a configuration: made from tables, and changed in one place by ``--set``."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ravine.errors import ConfigError, RavineError, unknown_name, unknown_option
from ravine.expression import Names, parse
from ravine.training.catalog import LOSSES, OPTIMIZERS, REGULARIZERS, SCHEDULES

__all__ = ["check_expression", "expression_from", "literal", "name_of", "with_option"]

_NAMES: dict[str, Names] = {"optimizer": OPTIMIZERS, "loss": LOSSES, "regularize": REGULARIZERS}
_INSIDE: dict[str, Names] = {"optimizer": SCHEDULES}
"""What else their arguments may be made of."""


def names_for(option: str, where: str) -> Names:
    """Return what can be named in the expressions of an option.

    Raises:
        ConfigError: there is no list of names for it, so that it can only be given whole.
    """
    if option not in _NAMES:
        raise ConfigError(
            f"{option} has no options of its own",
            where=where,
            expected="a table or a longer key only for " + ", ".join(_NAMES),
            do=f"give {option} whole",
        )
    return {**_INSIDE.get(option, {}), **_NAMES[option]}


def check_expression(option: str, text: str, where: str) -> str:
    """Return the expression of an option if it can be read; the error says where it stands."""
    if option in _NAMES and not (option == "regularize" and text.strip() == "none"):
        try:
            kind = option.replace("regularize", "regularizer")
            parse(text, _NAMES[option], kind=kind, inside=_INSIDE.get(option))
        except RavineError as error:
            raise ConfigError(str(error), where=where) from error
    return text


def expression_from(
    option: str, table: Mapping[str, Any], where: str, *, inside: bool = False
) -> str:
    """Write a table as an expression.

    Args:
        option: what the table stands for: "optimizer".
        table: ``name`` and the options; an option may be a table with a ``name`` in its turn. A text
            with a call or ``>>`` in it is an expression, any other a text.
        where: for the messages.
        inside: the table stands for an argument of the option's.

    Raises:
        ConfigError, UnknownNameError, UnknownOptionError: the table cannot be read.

    >>> expression_from("optimizer", {"name": "adam", "lr": "cosine(90, peak=1e-3)"}, "run.toml")
    'adam(lr=cosine(90, peak=1e-3))'
    """
    names = names_for(option, where)
    name = table.get("name")
    if not isinstance(name, str):
        raise ConfigError(
            "the table does not say what it is about",
            where=where,
            got="a table without a name" if name is None else f"name = {name!r}",
            expected='a name, such as name = "adam"',
            do=f"add a name, or write {option} as an expression",
        )
    known_names = names if inside else _NAMES[option]
    if name not in known_names:
        raise unknown_name("name" if inside else option, name, known_names, where=where)
    options = {key: value for key, value in table.items() if key != "name"}
    known = _parameters(names[name])
    for key in options:
        if known is not None and key not in known:
            raise unknown_option(name, key, known, where=where)
    given = [f"{key}={_written(option, v, f'{key} in {where}')}" for key, v in options.items()]
    return check_expression(option, f"{name}({', '.join(given)})", where)


def with_option(option: str, text: str, path: Sequence[str], value: str, where: str) -> str:
    """Return an expression with one option changed or added.

    Args:
        option: what the expression stands for: "optimizer".
        text: the expression.
        path: the way to what is set, from the outside: ``("lr",)``, or ``("lr", "peak")`` for an
            option of the schedule that is lr.
        value: as it is written: a literal or an expression; any other text is a text.
        where: for the messages.

    Raises:
        ConfigError, UnknownOptionError: there is no such place, or the value cannot be there.

    >>> with_option("optimizer", "adam(lr=1e-3)", ["lr"], "3e-4", "--set")
    'adam(lr=0.0003)'
    """
    names = names_for(option, where)
    tree = ast.parse(check_expression(option, text, where).strip(), mode="eval")
    tree = _Plain(names).visit(tree)
    node, so_far = tree.body, option
    for part in path[:-1]:
        found = _keyword(_call_with(node, part, names, so_far, where), part)
        so_far += f".{part}"
        if found is None or isinstance(found.value, ast.Constant):
            raise ConfigError(
                f"{so_far} has no options of its own",
                where=where,
                got="it is not given" if found is None else ast.unparse(found.value),
                do=f"set {so_far} whole",
            )
        node = found.value
    call = _call_with(node, path[-1], names, so_far, where)
    found = _keyword(call, path[-1])
    if found is None:
        call.keywords.append(ast.keyword(arg=path[-1], value=_node(value)))
    else:
        found.value = _node(value)
    return check_expression(option, ast.unparse(ast.fix_missing_locations(tree)), where)


def literal(text: str) -> Any:
    """Return the number, truth value, text or list that is written, or the text itself.

    >>> literal("3"), literal("true"), literal("all"), literal("'3'")
    (3, True, 'all', '3')
    """
    if text in ("true", "false"):  # as a file writes them
        return text == "true"
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text
    return value if isinstance(value, bool | int | float | str | list) else text


def name_of(option: str, text: str, where: str) -> str:
    """Return what an expression calls: ``"dropout"`` of ``"dropout(0.1)"``."""
    root = ast.parse(check_expression(option, text, where).strip(), mode="eval").body
    func = root.func if isinstance(root, ast.Call) else root
    return func.id if isinstance(func, ast.Name) else ""


class _Plain(ast.NodeTransformer):
    """Writes ``adam`` as a call and positional arguments by their names, so that all can be found."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Call(func=node, args=[], keywords=[])

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(one) for one in node.args]
        node.keywords = [self.visit(one) for one in node.keywords]
        known = _parameters(self._names[_name(node)])
        if known is not None:
            pairs = zip(known, node.args, strict=False)
            node.keywords = [ast.keyword(arg=k, value=v) for k, v in pairs] + node.keywords
            node.args = []
        return node


def _call_with(node: ast.expr, option: str, names: Names, so_far: str, where: str) -> ast.Call:
    """Return the one call that takes an option, among those joined by ``>>``."""
    calls = list(_joined(node))
    known = {_name(call): _parameters(names[_name(call)]) for call in calls}
    takers = [call for call in calls if (k := known[_name(call)]) is None or option in k]
    if len(takers) == 1:
        return takers[0]
    if takers:
        raise ConfigError(
            f"{so_far}.{option} stands for more than one",
            where=where,
            got=ast.unparse(node),
            do=f"set {so_far} whole",
        )
    every = [name for parameters in known.values() for name in parameters or ()]
    raise unknown_option(" >> ".join(known), option, every, where=where)


def _joined(node: ast.expr) -> Iterator[ast.Call]:
    if isinstance(node, ast.BinOp):
        yield from _joined(node.left)
        yield from _joined(node.right)
    elif isinstance(node, ast.Call):
        yield node


def _keyword(call: ast.Call, option: str) -> ast.keyword | None:
    return next((keyword for keyword in call.keywords if keyword.arg == option), None)


def _name(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Name)  # the parser let it pass
    return call.func.id


def _parameters(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of what a function takes; None where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None
    return [p.name for p in parameters]


def _node(text: str) -> ast.expr:
    """Read a value: a call, schedules joined by ``>>`` or a literal; any other text is a text."""
    return _expression(text) or ast.Constant(literal(text))


def _expression(text: str) -> ast.expr | None:
    """Return the tree of what is a call or joined by ``>>``, None for anything else.

    A bare name is a text: ``state_dtype = "int8"`` must not depend on what is called int8 some day.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    joined = isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift)
    return node if joined or isinstance(node, ast.Call) else None


def _written(option: str, value: Any, where: str) -> str:
    """Write a value of a table as it stands in an expression."""
    if isinstance(value, Mapping):
        return expression_from(option, value, where, inside=True)
    if isinstance(value, list):
        return f"[{', '.join(_written(option, one, where) for one in value)}]"
    if isinstance(value, str) and _expression(value) is not None:
        return value.strip()
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    raise ConfigError(
        "a value has no written form in an expression",
        where=where,
        got=repr(value) if isinstance(value, float) else f"{type(value).__name__} {value}",
        expected="text, a finite number, true or false, a list, or a table with a name",
    )
