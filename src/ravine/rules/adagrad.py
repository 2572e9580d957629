"""Adagrad."""

from __future__ import annotations

from ravine.engine.functions import sqrt
from ravine.rules.rule import rule

_NOT_NEGATIVE = ("a number >= 0", lambda x: x >= 0)


@rule(
    "Adagrad",
    state_names={"s": "sum"},
    moments={"s": "nonnegative"},
    initial={"s": "initial_accumulator_value"},
    bounds={"lr_decay": _NOT_NEGATIVE, "initial_accumulator_value": _NOT_NEGATIVE},
)
def adagrad(w, g, s, *, t, lr=1e-2, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    """Adagrad: the gradient divided by the root of the sum of all squares so far.

    Equation:
        s <- s + g^2          (s starts at initial_accumulator_value)
        w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    Differs from: torch starts the sums of every group at the optimizer's initial_accumulator_value,
    here a group may have its own. Keras and optax start s at 0.1, have eps 1e-7 (optax inside of the
    root) and no lr_decay.

    Source: Duchi, Hazan & Singer 2011; `torch.optim.Adagrad`.
    """
    s = s + g * g
    return w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps), s
