"""The numbers of a step, computed in float64 on the host before any element is.

What depends on hyperparameters alone is computed once, when they are read (`HostFunction.bind`), and
again only when they were changed; a step computes what changes with it. Of Adam's eight numbers
two depend on t: 0.8 us a step became 0.4, and the hyperparameters need not be copied for it (0.5).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from ravine.engine.columns import COLUMNS
from ravine.engine.functions import HOST, host_number
from ravine.engine.reductions import live

if TYPE_CHECKING:
    from ravine.engine.specialised import Step

NOW = ("t", "norm", "grad_scale")
"""Hyperparameters that the optimizer gives at every step, besides the numbers that are state."""

Numbers = tuple[float, ...]
At = Callable[[Mapping[str, Any]], Numbers]
"""Computes the numbers of a step from `NOW`, numbers that are state and totals."""

_SCOPE: dict[str, Any] = HOST | {"inf": math.inf, "nan": math.nan}  # as literals print
_IMMUTABLE = frozenset((float, int, bool, str, type(None)))


class HostFunction:
    """Computes numbers from hyperparameters.

    Args:
        steps: the equations, lowered, one after the other; each has its own names.
        wanted: for each of them the names of what is to be computed.
        result: all of these names, in order.
        late: names that are known only at the step, besides `NOW`.

    Attributes:
        needs: the hyperparameters and totals that it depends on.
        source: of the function.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        wanted: Sequence[Sequence[str]],
        result: Sequence[str],
        late: frozenset[str],
    ) -> None:
        self.needs: set[str] = set()
        late |= {*NOW}
        scope = _SCOPE | {"__number__": host_number}
        before: list[str] = []
        now: list[str] = []
        name_of: dict[str, str] = {}
        for k, (step, names) in enumerate(zip(steps, wanted, strict=True)):
            lowered = step.lowered
            host, needed = live(lowered.host, names)
            given = needed & (
                lowered.equation.hyperparameters.keys() | {r.name for r in lowered.reductions}
            )
            self.needs |= given
            first, then, changing = _sorted_by_time(host, needed & late)
            own = _Own(k)
            for name in sorted(given):
                lines = now if name in late else before
                lines += _read(own(name), "__now__" if name in late else "__options__", name)
            for name in sorted(needed & lowered.constants.keys()):
                scope[own(name)] = lowered.constants[name]
            before += map(own.line, first)
            for name in sorted((needed - late) & changing):  # else it would be local, and not there
                before.append(f"{own(name)}_before = {own(name)}")
                now.append(f"{own(name)} = {own(name)}_before")
            now += map(own.line, then)
            name_of |= {name: own(name) for name in names}
        values = f"({''.join(f'{name_of[name]}, ' for name in result)})"
        self.source = _source(before, now, values)
        exec(compile(self.source, "<scalars>", "exec"), scope)
        self.bind: Callable[[Mapping[str, Any]], At] = scope["bind"]
        """Read the hyperparameters; what is returned is called at every step."""
        self.options: tuple[str, ...] = tuple(sorted(self.needs - late))
        self._columns: Callable[[Mapping[str, Any]], At] | None = None
        if not _branches(now):
            on_columns = scope | COLUMNS
            exec(
                compile(_source(before, now, values, quick=False), "<scalars>", "exec"), on_columns
            )
            self._columns = on_columns["bind"]

    def __call__(self, values: Mapping[str, Any]) -> Numbers:
        """Return the numbers for hyperparameters and totals that are all given together."""
        return self.bind(values)(values)

    def table(
        self,
        options: Mapping[str, Any],
        now: Mapping[str, Any],
        columns: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]],
        count: int,
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the numbers of each tensor, a row for each.

        Args:
            options: the hyperparameters.
            now: what is known at the step and the same for all tensors.
            columns: what each tensor has of its own, such as its norm.
            count: how many tensors there are.
        """
        if self._columns is not None:
            with np.errstate(all="ignore"):
                found: Sequence[Any] = self._columns(options)({**now, **columns})
        else:
            at, names = self.bind(options), columns.keys()
            own = zip(*(column.tolist() for column in columns.values()), strict=True)
            rows = [at({**now, **dict(zip(names, one, strict=True))}) for one in own]
            found = list(zip(*rows, strict=True))
        table = np.empty((count, len(found)))
        for k, column in enumerate(found):
            table[:, k] = column
        return table


def nothing() -> HostFunction:
    """Return a function that computes no numbers."""
    return HostFunction((), (), (), frozenset())


class Bound:
    """A host function and the hyperparameters that were read for it, of any number of groups."""

    def __init__(self, function: HostFunction) -> None:
        self._bind = function.bind
        self._read = itemgetter(*(function.options or ("lr",)))  # it needs one name
        self._known: dict[int, tuple[Any, At, Mapping[str, Any]]] = {}

    def at(self, options: Mapping[str, Any]) -> At:
        """Return the function of a step for a group, made anew if the group was changed."""
        values = self._read(options)
        try:
            known, at, _ = self._known[id(options)]
            if known == values:
                return at
        except KeyError:
            pass
        at = self._bind(options)
        if _immutable(values):  # else it may change and still be the same: a tensor, a list
            self._known[id(options)] = values, at, options  # kept, so that nobody gets its id
        else:
            self._known.pop(id(options), None)
        return at


def _immutable(value: Any) -> bool:
    kind = type(value)
    return kind in _IMMUTABLE or (kind is tuple and all(map(_immutable, value)))


def _read(name: str, mapping: str, key: str) -> list[str]:
    # A rate of NumPy's float32 would take the arithmetic along to its type.
    number = "float" if key == "lr" else "__number__"
    # Asked here: the call costs 0.1 us, and nearly every number is a float.
    test = f"if type({name}) is not float: {name} = {number}({name})"
    return [f"{name} = {mapping}[{key!r}]", test]


def _sorted_by_time(lines: Sequence[str], late: set[str]) -> tuple[list[str], list[str], set[str]]:
    """Return the assignments that can be made before the step, the others, and what these bind.

    A name that any late line binds is late in all of its lines: it lives in one place only.
    """
    sorts = [_names(line) for line in lines]
    late, bound, known = set(late), set[str](), -1
    while len(late) != known:
        known = len(late)
        for targets, used in sorts:
            if late & (targets | used):
                late |= targets
                bound |= targets
    is_late = [bool(late & (targets | used)) for targets, used in sorts]
    before = [line for line, then in zip(lines, is_late, strict=True) if not then]
    return before, [line for line, then in zip(lines, is_late, strict=True) if then], bound


def _names(line: str) -> tuple[set[str], set[str]]:
    """Return the names that an assignment binds, and those that it reads."""
    nodes = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Name)]
    targets = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    return targets, {node.id for node in nodes if isinstance(node.ctx, ast.Load)}


class _Own(ast.NodeTransformer):
    """Gives the names of an equation a prefix: all equations share one function."""

    def __init__(self, number: int) -> None:
        self._prefix = f"_{number}_"

    def __call__(self, name: str) -> str:
        return name if name in _SCOPE else self._prefix + name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name(self(node.id), node.ctx), node)

    def line(self, line: str) -> str:
        return ast.unparse(self.visit(ast.parse(line)))


def _branches(lines: Sequence[str]) -> bool:
    """Whether Python decides anything, which it does for one number at a time."""
    kinds = (ast.IfExp, ast.BoolOp, ast.Not)
    own = [line for line in lines if not line.startswith("if type(")]
    return any(isinstance(node, kinds) for line in own for node in ast.walk(ast.parse(line)))


def _source(before: Sequence[str], now: Sequence[str], values: str, quick: bool = True) -> str:
    if not now:  # the same tuple at every step, which the caller can see
        before, now, values = [*before, f"__result__ = {values}"], [], "__result__"
    lines = ["def bind(__options__):", *(f"    {line}" for line in before)]
    careful = [*now, f"return {values}"]
    native = [*map(_QUICK.line, now), careful[-1]]
    if native == careful or not quick:
        lines += ["    def at(__now__):", *(f"        {line}" for line in careful)]
    else:
        lines += ["    def careful(__now__):", *(f"        {line}" for line in careful)]
        lines += [
            "    def at(__now__):",
            "        try:",
            *(f"            {line}" for line in native),
        ]
        lines += ["        except (ZeroDivisionError, OverflowError):"]
        lines += ["            return careful(__now__)"]
    return "\n".join([*lines, "    return at"])


class _Quick(ast.NodeTransformer):
    """Puts Python's operators in the place of ours, which differ where Python raises an error.

    A power of what may be negative stays a call: Python turns complex there, without a word. For
    Adam it is 0.2 us a step.
    """

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "divide":
            return ast.BinOp(node.args[0], ast.Div(), node.args[1])
        if name == "raise_to" and isinstance(node.args[0], (ast.Name, ast.Constant)):
            power = ast.BinOp(node.args[0], ast.Pow(), node.args[1])
            positive = ast.Compare(node.args[0], [ast.Gt()], [ast.Constant(0)])
            return ast.IfExp(positive, power, node)
        return node

    def line(self, line: str) -> str:
        if "divide(" not in line and "raise_to(" not in line:
            return line
        return ast.unparse(ast.fix_missing_locations(self.visit(ast.parse(line))))


_QUICK = _Quick()
