"""An equation: a scalar Python function whose signature says what its names are.

Positional names are tensors seen one element at a time (for an update rule: weight, gradient,
state). Keyword-only names are numbers that are the same for all elements (hyperparameters).
"""

from __future__ import annotations

import ast
import builtins
import copy
import dis
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from ravine.engine.functions import CANONICAL, FUNCTIONS, HOST, REDUCTIONS, negation
from ravine.errors import EquationError, taken_name

_INVERT = dis.opmap["UNARY_INVERT"]

REQUIRED: Any = inspect.Parameter.empty

_KNOWN = FUNCTIONS | REDUCTIONS

RESERVED_NUMBERS = frozenset(HOST) | {"inf", "nan"}
"""Names that mean something in generated code on numbers: not for hyperparameters."""

RESERVED_TENSORS = frozenset(_KNOWN) | {
    "number", "negation", "power", "power2", "power3", "power4", "divide",
}  # fmt: skip
"""Names that mean something in generated code on elements: not for tensors."""


class Equation:
    """A scalar function, its names and its source."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not isinstance(function, types.FunctionType):
            raise EquationError(
                "an equation must be a plain Python function",
                got=repr(function),
                do="write it with def; for a class or a partial, wrap it in a def",
            )
        self.function = function
        self.name = function.__name__
        self.doc = inspect.getdoc(function) or ""
        self.tensors: tuple[str, ...] = ()
        self.hyperparameters: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            number = parameter.kind is parameter.KEYWORD_ONLY
            taken = RESERVED_NUMBERS if number else RESERVED_TENSORS
            if parameter.name in taken:
                raise taken_name(f"equation {self.name!r}", parameter.name, taken)
            if parameter.kind is parameter.KEYWORD_ONLY:
                self.hyperparameters[parameter.name] = parameter.default
            elif (
                parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is REQUIRED
            ):
                self.tensors += (parameter.name,)
            else:
                raise EquationError(
                    f"equation {self.name!r} has the parameter {str(parameter)!r}",
                    expected="tensors as positional names without default, "
                    "hyperparameters after a bare *",
                    do=f"write def {self.name}(w, g, state, *, t, lr, hyperparameter=0.9)",
                )

        if _INVERT in function.__code__.co_code[::2] and self.source is None:
            raise EquationError(
                f"equation {self.name!r} has a ~, which is another thing on Python's own numbers",
                expected="a function whose source is available, in which that can be put right",
                do="write it into a file, or turn the comparison round",
            )

    def __repr__(self) -> str:
        return f"Equation({self.name}{inspect.signature(self.function)})"

    @cached_property
    def source(self) -> str | None:
        """The text of the function, or None where Python has not kept it (``exec``, bare REPL)."""
        try:
            return textwrap.dedent(inspect.getsource(self.function))
        except (OSError, TypeError):
            return None

    @cached_property
    def tree(self) -> ast.FunctionDef:
        """The parsed function, with ``u += x`` written as ``u = u + x``."""
        if self.source is None:
            raise EquationError(f"the source of equation {self.name!r} is not available")
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.FunctionDef) and node.name == self.name:
                tree: ast.FunctionDef = _OutOfPlace().visit(node)
                return tree
        raise EquationError(
            f"equation {self.name!r} is not written as a def",
            got=self.source.strip().splitlines()[0],
            do="write it as a def of its own",
        )

    def fail(self, node: ast.AST, what: str, do: str = "") -> EquationError:
        """Build an error that shows the line of the equation with a caret under the place."""
        lineno = getattr(node, "lineno", 1)
        column = getattr(node, "col_offset", 0)
        line = (self.source or "").splitlines()[lineno - 1]
        indent = len(line) - len(line.lstrip())
        code = self.function.__code__
        return EquationError(
            f"equation {self.name!r}: {what}",
            where=f"{code.co_filename}, line {code.co_firstlineno + lineno - 1}",
            got=f"{line.strip()}\n{' ' * (column - indent)}^",
            do=do,
        )

    @cached_property
    def names(self) -> dict[str, Any]:
        """What the function's free names stand for: its closure and its module's globals."""
        closure = inspect.getclosurevars(self.function)
        return {**self.function.__globals__, **closure.nonlocals}

    def called(self, node: ast.Call) -> str:
        """Return the canonical name of the function that a call stands for."""
        target = node.func
        found: Any = None
        if isinstance(target, ast.Name):
            found = self.names.get(target.id) or _KNOWN.get(target.id)
            found = found or getattr(builtins, target.id, None)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            found = getattr(self.names.get(target.value.id), target.attr, None)
        try:
            canonical = CANONICAL.get(found)
        except TypeError:
            canonical = None
        if canonical is None:
            raise self.fail(
                node,
                f"calls {ast.unparse(target)}, which is not known to the engine",
                "use one of " + ", ".join(sorted(_KNOWN)) + ", or write its formula out",
            )
        if node.keywords:
            raise self.fail(node, f"calls {canonical} with keywords")
        wanted = len(inspect.signature(_KNOWN[canonical]).parameters)
        if len(node.args) != wanted:
            raise self.fail(
                node, f"calls {canonical} with {len(node.args)} arguments; it takes {wanted}"
            )
        return canonical

    @cached_property
    def reduces(self) -> bool:
        """Whether it names a function that needs all elements before any."""
        code = self.function.__code__
        named = {*code.co_names, *code.co_freevars}
        known = set(REDUCTIONS.values())
        return bool(named & REDUCTIONS.keys()) or any(
            isinstance(value, types.FunctionType) and value in known
            for value in map(self.names.get, named)
        )

    @cached_property
    def reference(self) -> Callable[..., Any]:
        """The same function with `sqrt` and the rest bound to what works on numbers and tensors."""
        return self.bound({})

    def bound(self, changed: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """Return `reference` with other functions behind some of the canonical names."""
        functions = {**_KNOWN, **changed}
        scope: dict[str, Any] = {"max": functions["maximum"], "min": functions["minimum"]}
        scope |= functions | self.names
        for name, value in scope.items():
            if isinstance(value, types.ModuleType):
                scope[name] = _Bound(value, functions)
            else:
                try:
                    scope[name] = functions[CANONICAL[value]]
                except (KeyError, TypeError):
                    continue
        if self.source is None:
            code = self.function.__code__
            cells = tuple(types.CellType(scope[name]) for name in code.co_freevars)
            rebound = types.FunctionType(code, scope, self.name, None, cells or None)
        else:
            tree = _Negated().visit(copy.deepcopy(self.tree))
            tree.decorator_list, tree.returns = [], None
            for argument in (*tree.args.args, *tree.args.kwonlyargs):
                argument.annotation = None
            tree.args.kw_defaults = [None] * len(tree.args.kwonlyargs)
            module = ast.fix_missing_locations(ast.Module([tree], type_ignores=[]))
            scope[_Negated.NAME] = negation
            exec(compile(module, self.function.__code__.co_filename, "exec"), scope)
            rebound = scope[self.name]
        rebound.__kwdefaults__ = self.function.__kwdefaults__
        return rebound


class _OutOfPlace(ast.NodeTransformer):
    """Writes ``u += x`` as ``u = u + x``.

    On numbers the two are the same; on tensors the first would change a weight, a gradient, or
    whatever else has been given the name u.
    """

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not isinstance(node.target, ast.Name):
            return node
        old = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
        value = ast.copy_location(ast.BinOp(old, node.op, node.value), node)
        return ast.copy_location(ast.Assign([node.target], value), node)


class _Negated(ast.NodeTransformer):
    """Writes ``~x`` as a call, which means the same of Python's numbers as of tensors."""

    NAME = "__negation__"

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Invert):
            return node
        call = ast.Call(ast.Name(self.NAME, ast.Load()), [node.operand], [])
        return ast.copy_location(call, node)


class _Bound:
    """A module in which the names known to the engine mean the engine's functions."""

    def __init__(
        self, module: types.ModuleType, functions: Mapping[str, Callable[..., Any]]
    ) -> None:
        self._module = module
        self._functions = functions

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        try:
            return self._functions[CANONICAL[found]]
        except (KeyError, TypeError):
            return found
