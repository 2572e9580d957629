"""Removes from an expression the masks that only its derivatives need.

In ``where(near, expm1(where(near, x, 0.0)), exp(x))`` the inner mask keeps a derivative by autograd
finite: 0 times infinity would be NaN. A kernel computes no derivatives and takes one branch or the
other, so that to it the mask is work, and hides that `expm1` and `exp` have the same argument.
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
        arguments = [self.visit(condition)]
        for holds, branch in zip((True, False), branches, strict=True):
            arguments.append(_Branches({**self.known, text: holds}).visit(branch))
        return ast.copy_location(ast.Call(call.func, arguments, []), call)
