"""The name of a loss, by which a task finds the conversion of its targets."""

from __future__ import annotations

import ast
import functools

from torch import nn


def loss_name(loss: object) -> str | None:
    """Return the name of a loss expression or of a loss of Ravine's own, otherwise None.

    A module has the name of its function (``BinaryCrossEntropy`` is ``binary_cross_entropy``). A loss
    from elsewhere has no name: its author decides what its targets mean, even if it happens to be
    called ``hinge``.

    >>> loss_name("huber(delta=2)"), loss_name("mse"), loss_name(nn.HuberLoss())
    ('huber', 'mse', None)
    """
    if isinstance(loss, str):
        return _first_word(loss)
    while isinstance(loss, functools.partial):
        loss = loss.func
    owner = type(loss) if isinstance(loss, nn.Module) else loss
    if getattr(owner, "__module__", "").partition(".")[0] != "ravine":
        return None
    name = getattr(getattr(owner, "function", owner), "__name__", None)
    return name if isinstance(name, str) else None


def _first_word(expression: str) -> str | None:
    try:
        node = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        return None  # the grammar of expressions reports it, with a caret, when it is read
    if isinstance(node, ast.Call):
        node = node.func
    return node.id if isinstance(node, ast.Name) else None
