"""The update equations, simplest first: one file a rule.

A rule is added by adding a file; `RULES` finds it.
"""

from __future__ import annotations

import importlib
import pkgutil

from ravine.rules.matrix_rule import MatrixRule
from ravine.rules.rule import Rule, rule

__all__ = ["MATRIX_RULES", "RULES", "MatrixRule", "Rule", "rule"]


def _found() -> dict[str, Rule]:
    rules = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, Rule):
                rules[value.name] = value
    return dict(sorted(rules.items()))


_ALL = _found()

MATRIX_RULES: dict[str, MatrixRule] = {k: r for k, r in _ALL.items() if isinstance(r, MatrixRule)}
"""The rules of this folder that compute with whole matrices, by the name of their class."""

RULES: dict[str, Rule] = {name: rule for name, rule in _ALL.items() if name not in MATRIX_RULES}
"""The rules that are one equation of scalars, by the name of their optimizer class."""
