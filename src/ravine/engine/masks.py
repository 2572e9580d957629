"""Removes from an expression the masks that only its derivatives need.

In ``where(near, expm1(where(near, x, 0.0)), exp(x))`` the inner mask keeps a derivative by autograd
finite: 0 times infinity would be NaN. A kernel computes no derivatives and takes one branch or the
other, so that to it the mask is work, and hides that `expm1` and `exp` have the same argument.

``where(x > 0, -x, x)`` has the right second derivative at 0, which ``-abs(x)`` has not. A kernel is told
the latter, from which LLVM sees that an `exp` of it needs no upper limit.
"""

from __future__ import annotations

import ast


def unmasked(node: ast.expr) -> ast.expr:
    """Return an expression on one element without what a condition around it has decided."""
    found: ast.expr = _Branches({}).visit(node)
    return found


class _Branches(ast.NodeTransformer):
    def __init__(self, known: dict[str, bool]) -> None:
        self.known = known  # the text of a condition -> whether it holds here

    def visit_Call(self, call: ast.Call) -> ast.AST:
        if not (
            isinstance(call.func, ast.Name) and call.func.id == "where" and len(call.args) == 3
        ):
            return self.generic_visit(call)
        condition, *branches = call.args
        text = ast.unparse(condition)
        if text in self.known:
            return self.visit(branches[0 if self.known[text] else 1])  # type: ignore[no-any-return]
        size = _size(condition, *branches)
        if size is not None:
            return self.visit(size)  # type: ignore[no-any-return]
        arguments = [self.visit(condition)]
        for holds, branch in zip((True, False), branches, strict=True):
            arguments.append(_Branches({**self.known, text: holds}).visit(branch))
        return ast.copy_location(ast.Call(call.func, arguments, []), call)


def _size(condition: ast.expr, a: ast.expr, b: ast.expr) -> ast.expr | None:
    """Return abs(b) or -abs(b) where the choice, of a = -b by the sign of b, comes to that."""
    if not (
        isinstance(condition, ast.Compare)
        and isinstance(condition.ops[0], (ast.Lt, ast.Gt))
        and ast.unparse(condition.comparators[0]) == "number(0.0)"
        and isinstance(a, ast.UnaryOp)
        and isinstance(a.op, ast.USub)
        and ast.unparse(condition.left) == ast.unparse(a.operand) == ast.unparse(b)
    ):
        return None
    size = ast.Call(ast.Name("abs", ast.Load()), [b], [])
    return size if isinstance(condition.ops[0], ast.Lt) else ast.UnaryOp(ast.USub(), size)
