"""The update equations, simplest first: one file a rule.

A rule is added by adding a file; `RULES` finds it.
"""

from __future__ import annotations

import importlib
import pkgutil

from ravine.rules.rule import Rule, rule

__all__ = ["RULES", "Rule", "rule"]


def _found() -> dict[str, Rule]:
    rules = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, Rule):
                rules[value.name] = value
    return dict(sorted(rules.items()))


RULES: dict[str, Rule] = _found()
"""Every rule of this folder, by the name of its optimizer class."""
