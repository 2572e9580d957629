"""Optimizers: one class for each rule, all of them `torch.optim.Optimizer`.

    from ravine.optim import AdamW
    optimizer = AdamW(model.parameters(), lr=3e-4, clip_norm=1.0)

The classes are made from the rules in `ravine.rules`; ``dir(ravine.optim)`` lists them.
"""

from __future__ import annotations

from ravine.optim.make import optimizer_class, update_rule
from ravine.optim.optimizer import Optimizer
from ravine.optim.schedule_lr import ScheduleLR
from ravine.rules import MATRIX_RULES, RULES

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: optimizer_class(rule, __name__, name)
    for name, rule in sorted({**RULES, **MATRIX_RULES}.items())
}
"""Every built-in optimizer by its class name."""

__all__ = ["OPTIMIZERS", "Optimizer", "ScheduleLR", "update_rule"]
__all__ += list(OPTIMIZERS)

globals().update(OPTIMIZERS)


def __getattr__(name: str) -> type[Optimizer]:  # tells type checkers what the names above are
    raise AttributeError(f"ravine.optim has no optimizer {name!r}")
