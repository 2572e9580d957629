"""Read a written choice such as ``adam(lr=warmup(100) >> cosine(900, peak=1e-3))``.

The text is read with `ast` and walked by hand, never evaluated: only known names can be called,
and only literals and the results of such calls can be given to them.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ravine.errors import ArgumentTypeError, ExpressionError, RavineError, nearest

Names = Mapping[str, Callable[..., Any]]
_GRAMMAR = "a name, a call such as huber(delta=2), a literal, or two of them joined by >>"


def parse(text: str, names: Names, *, kind: str = "name", inside: Names | None = None) -> Any:
    """Make what an expression says, by calling the known names in it.

        expression = literal | name | name(arguments) | expression >> expression
        literal    = number | 'text' | True | False | None | (items) | [items]

    A name without parentheses is a call without arguments. Arguments are expressions in their
    turn, positional or by keyword, and are checked against `inspect.signature` of what is called
    before anything is called.

    Args:
        text: the expression; may run over several lines inside parentheses.
        names: what each name calls: a function, a class, a `functools.partial`.
        kind: what the outermost name stands for ("optimizer", "loss"), for the error messages.
        inside: what further names call that are meant for arguments, such as schedules; the error
            about an outermost name does not list them.

    Returns:
        What the outermost call returns, or the value of a literal.

    Raises:
        ExpressionError: the text is not in the grammar, a name or keyword is unknown, an argument
            is missing or given twice, or what was called refused its arguments (`RavineError`,
            `TypeError`, `ValueError`; the original is the `__cause__`). The message shows the text
            with a caret under the place.
        ArgumentTypeError: `text` is not a string.

    Example:
        >>> from ravine.schedules import SCHEDULES
        >>> parse("warmup(100) >> cosine(900, peak=1e-3)", SCHEDULES)
        warmup(100) >> cosine(900, peak=0.001)
        >>> parse("cosine(900, paek=1e-3)", SCHEDULES, kind="schedule")
        Traceback (most recent call last):
        ...
        ravine.errors.ExpressionError: cosine has no option 'paek'
          where:    cosine(900, paek=1e-3)
                                ^^^^
          expected: one of steps, peak, end
          do:       did you mean 'peak'?

    Differs from Keras, whose `get` takes names or nested dictionaries; torch and optax have none.
    """
    if not isinstance(text, str):
        raise ArgumentTypeError(
            "an expression is written as text",
            got=f"{text!r} of type {type(text).__name__}",
            expected="a string such as 'adam(lr=1e-3)'",
        )
    return _Reader(text.strip(), names, kind, inside or {}).read()


class _Reader:
    """Walks the syntax tree of one expression, and knows where in the text each part stands."""

    def __init__(self, text: str, names: Names, kind: str, inside: Names) -> None:
        self.text = text
        # The lines as Python's tokenizer counts them; str.splitlines() also splits at form feeds.
        self.lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.names, self.outermost = {**inside, **names}, names
        self.kind = kind

    def read(self) -> Any:
        if not self.text:
            raise ExpressionError(f"the {self.kind} is empty", expected=_GRAMMAR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                root = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            self.refuse_syntax(error)
        except (ValueError, MemoryError, RecursionError) as error:
            raise self.unreadable(str(error) or "it is nested too deeply") from error
        try:
            return self.value(root, outermost=True)
        except RecursionError as error:
            raise self.unreadable("it is nested too deeply") from error

    def value(self, node: ast.expr, *, outermost: bool = False) -> Any:
        """Return what one node of the tree stands for."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=number)) if (
                isinstance(number, int | float) and not isinstance(number, bool)
            ):
                return -number if isinstance(node.op, ast.USub) else number
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Name():
                return self.call(node, node, [], [], outermost)
            case ast.Call(func=ast.Name() as name):
                return self.call(node, name, node.args, node.keywords, outermost)
            case ast.BinOp(op=ast.RShift()):
                return self.join(node, outermost)
            case ast.Call(func=ast.Attribute()):
                return self.refuse(node.func)
            case _:
                return self.refuse(node)

    def join(self, node: ast.BinOp, outermost: bool) -> Any:
        left = self.value(node.left, outermost=outermost)
        right = self.value(node.right, outermost=outermost)
        try:
            if isinstance(left, int) and isinstance(right, int):
                raise TypeError("shifting bits is not meant")
            return left >> right
        except RavineError as error:
            raise self.passed_on(node, error) from error
        except TypeError as error:
            raise self.error(
                node,
                ">> cannot join these two",
                got=f"{_briefly(left)} >> {_briefly(right)}",
                expected="two schedules, such as warmup(100) >> cosine(900, peak=1e-3)",
            ) from error

    def call(
        self,
        node: ast.expr,
        name: ast.Name,
        args: list[ast.expr],
        keywords: list[ast.keyword],
        outermost: bool,
    ) -> Any:
        if name.id not in self.names:
            known = sorted(self.outermost if outermost else self.names)
            near = nearest(name.id, known) or nearest(name.id.lower(), known)
            quotes = f"a text needs quotes: '{name.id}'"
            is_text = not outermost and isinstance(node, ast.Name) and not near
            raise self.error(
                name,
                f"unknown {self.kind if outermost else 'name'} {name.id!r}",
                expected="one of " + ", ".join(known),
                do=quotes if is_text else near,
            )
        function = self.names[name.id]
        for argument in args:
            if isinstance(argument, ast.Starred):
                self.refuse(argument)
        self.check(name, function, args, keywords)
        given = [self.value(argument) for argument in args]
        options = {str(keyword.arg): self.value(keyword.value) for keyword in keywords}
        try:
            return function(*given, **options)
        except (RavineError, TypeError, ValueError) as error:
            raise self.passed_on(node, error) from error

    def check(
        self,
        name: ast.Name,
        function: Callable[..., Any],
        args: list[ast.expr],
        keywords: list[ast.keyword],
    ) -> None:
        """Compare the arguments with the signature, and point at the first that does not fit."""
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some built-in functions have none; the call decides
            signature = inspect.signature(_anything)
        parameters = list(signature.parameters.values())
        kinds = {parameter.kind for parameter in parameters}
        by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, _EITHER)]
        by_keyword = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, _EITHER)]
        form = name.id + _plain(signature)

        if len(args) > len(by_position) and inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise self.error(
                args[len(by_position)],
                f"{name.id} takes {len(by_position) or 'no'} positional argument"
                + ("s" if len(by_position) != 1 else ""),
                got=str(len(args)),
                expected=form,
            )
        filled = set(by_position[: len(args)])
        for keyword in keywords:
            option = keyword.arg
            if option is None:
                raise self.error(keyword, "** is not part of an expression", expected=form)
            if option in filled and option in by_keyword:
                raise self.error(keyword, f"{name.id} got {option!r} twice", expected=form)
            if option not in by_keyword and inspect.Parameter.VAR_KEYWORD not in kinds:
                raise self.error(
                    keyword,
                    f"{name.id} has no option {option!r}",
                    expected="one of " + ", ".join(by_keyword) if by_keyword else "no options",
                    do=nearest(option, by_keyword),
                )
            filled.add(option)
        missing = [
            p.name
            for p in parameters
            if p.default is p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and p.name not in filled
        ]
        if missing:
            raise self.error(name, f"{name.id} needs {' and '.join(missing)}", expected=form)

    def refuse(self, node: ast.expr) -> NoReturn:
        """Say why a piece of Python is not part of the grammar, and what to write instead."""
        source = ast.get_source_segment(self.text, node) or ""
        do = ""
        match node:
            case ast.Compare():
                do = "join schedules with >>, give an option with ="
            case ast.Attribute(attr=attribute):
                do = nearest(attribute, self.names) or nearest(attribute.lower(), self.names)
            case ast.BinOp(left=ast.Name(), op=ast.Sub(), right=ast.Name()):
                do = nearest(source.replace("-", "_"), self.names)
            case ast.BinOp(left=ast.Constant(), right=ast.Constant()):
                do = "write the number out"
        raise self.error(
            node, f"{_briefly_text(source)} is not part of an expression", expected=_GRAMMAR, do=do
        )

    def refuse_syntax(self, error: SyntaxError) -> NoReturn:
        # Python's own advice after the first sentence is about statements, which are not read here.
        message = error.msg.split(". ")[0]
        line = min(max(error.lineno or 1, 1), len(self.lines))
        start = min(max((error.offset or 1) - 1, 0), len(self.lines[line - 1]))
        raise self.unreadable(message, where=self.underline(line, start, 1)) from error

    def unreadable(self, message: str, *, where: str = "") -> ExpressionError:
        return ExpressionError(
            f"cannot read this {self.kind}: {message}", where=where, expected=_GRAMMAR
        )

    def passed_on(self, node: ast.expr, error: Exception) -> ExpressionError:
        """Give an error of what was called its place in the text, its own message first."""
        passed = ExpressionError(str(error) or type(error).__name__, where=self.place(node))
        passed.what = error.what if isinstance(error, RavineError) else passed.what
        return passed

    def error(self, node: ast.expr | ast.keyword, what: str, **parts: str) -> ExpressionError:
        return ExpressionError(what, where=self.place(node), **parts)

    def place(self, node: ast.expr | ast.keyword) -> str:
        """Show the line where a node starts with carets under it (a keyword: under its name)."""
        line = self.lines[node.lineno - 1]
        start = len(line.encode()[: node.col_offset].decode())  # ast counts bytes
        if isinstance(node, ast.keyword):
            width = len(node.arg or "**")
        elif node.end_lineno == node.lineno:
            width = len(line.encode()[node.col_offset : node.end_col_offset].decode())
        else:
            width = len(line) - start
        return self.underline(node.lineno, start, width)

    def underline(self, line: int, start: int, width: int) -> str:
        shown = self.lines[line - 1].replace("\t", " ")
        return f"{shown}\n{' ' * start}{'^' * max(width, 1)}"


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _anything(*_args: Any, **_options: Any) -> None:
    """Stand in for the signature of a function that has none."""


def _plain(signature: inspect.Signature) -> str:
    """Write a signature without its annotations."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters))


def _briefly(value: object) -> str:
    return _briefly_text(repr(value))


def _briefly_text(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
