# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""What every optimizer can do besides its rule: clip, penalise, decay, average, in the same pass.

Each option is an equation of its own, placed before or after the rule in one program. Left at its
default it returns its input unchanged, and the engine drops it.
"""

from __future__ import annotations

from collections.abc import Collection

from ravine.engine.equation import Equation
from ravine.engine.functions import maximum, minimum, sign, tensor_mean, where
from ravine.engine.program import Program, Stage
from ravine.rules import Rule


def unscale(g, *, grad_scale):
    """Take the scale of the loss out of the gradient, where a GradScaler has put it in."""
    return g * (1 / grad_scale)


def clip_by_norm(g, *, norm, clip_norm=None):
    """Scale the gradient so that the norm over all weights is at most clip_norm (torch's formula).

    Equation:
        g <- g min(1, clip_norm / (norm + 1e-6))
    """
    if clip_norm is not None:
        g = g * minimum(1.0, clip_norm / (norm + 1e-6))
    return g


def clip_by_value(g, *, clip_value=None):
    """Limit every element of the gradient to [-clip_value, clip_value]."""
    if clip_value is not None:
        g = minimum(maximum(g, -clip_value), clip_value)
    return g


def ascend(g, *, maximize=False):
    """Turn the gradient round, to climb."""
    if maximize:
        g = -g
    return g


def l2_penalty(w, g, *, l2=0.0):
    """Gradient of the penalty l2 sum w^2: g <- g + 2 l2 w."""
    if l2 != 0:
        g = g + 2 * l2 * w
    return g


def l1_penalty(w, g, *, l1=0.0, l1_proximal=False):
    """Subgradient of the penalty l1 sum |w|: g <- g + l1 sign(w)."""
    if l1 != 0 and not l1_proximal:
        g = g + l1 * sign(w)
    return g


def coupled_decay(w, g, *, weight_decay=0.0, decay="coupled"):
    """Weight decay as part of the gradient: g <- g + weight_decay w."""
    if weight_decay != 0 and decay == "coupled":
        g = g + weight_decay * w
    return g


def decoupled_decay(w, *, lr, weight_decay=0.0, decay="coupled"):
    """Weight decay as a step of its own, times lr or independent of it."""
    if weight_decay != 0:
        if decay == "decoupled":
            w = w * (1 - lr * weight_decay)
        elif decay == "independent":
            w = w * (1 - weight_decay)
    return w


def remember(w, before, *, cautious=False):
    """Keep the weight as it is before the rule."""
    return w if cautious else before


def cautious_step(w, before, g, *, cautious=False):
    """Keep of a step only what goes against the gradient, lengthened by what was left out.

    Equation:
        u = before - w,   k = 1 where u and g have the same sign, else 0
        w <- before - u k / max(mean of k over the tensor, 1e-3)

    A step too small to change its weight counts as left out.
    """
    if cautious:
        u = before - w
        kept = where(sign(u) * sign(g) > 0, 1.0, 0.0)
        w = before - u * kept / maximum(tensor_mean(kept), 1e-3)
    return w


def soft_threshold(w, *, lr, l1=0.0, l1_proximal=False):
    """Proximal step of the penalty l1 sum |w|: w <- sign(w) max(|w| - lr l1, 0), exact zeros."""
    if l1 != 0 and l1_proximal:
        w = where(abs(w) <= lr * l1, 0.0, w - lr * l1 * sign(w))
    return w


def average_weights(w, a, *, average=None):
    """Exponential average of the weights: a <- average a + (1 - average) w."""
    if average is not None:
        a = average * a + (1 - average) * w
    return a


BEFORE = "w_before"
"""A variable of the pass alone: it is in no memory."""

AVERAGE = "average"
"""The state that holds the averaged weights; it starts as a copy of the weights."""


def _stages(rule: Rule | None, scaled: bool = False) -> list[Stage]:
    of_rule = []
    if rule is not None:
        of_rule = [
            Stage(
                rule.equation,
                ("w", "g", *rule.states),
                ("w", *rule.states),
                tuple(rule.numbers),
                tuple(rule.shared),
            )
        ]
    return [
        *([Stage(Equation(unscale), ("g",), ("g",))] if scaled else []),
        Stage(Equation(clip_by_norm), ("g",), ("g",)),
        Stage(Equation(clip_by_value), ("g",), ("g",)),
        Stage(Equation(ascend), ("g",), ("g",)),
        Stage(Equation(l2_penalty), ("w", "g"), ("g",)),
        Stage(Equation(l1_penalty), ("w", "g"), ("g",)),
        Stage(Equation(coupled_decay), ("w", "g"), ("g",)),
        Stage(Equation(decoupled_decay), ("w",), ("w",)),
        Stage(Equation(remember), ("w", BEFORE), (BEFORE,)),
        *of_rule,
        Stage(Equation(cautious_step), ("w", BEFORE, "g"), ("w",)),
        Stage(Equation(soft_threshold), ("w",), ("w",)),
        Stage(Equation(average_weights), ("w", AVERAGE), (AVERAGE,)),
    ]


OPTIONS = frozenset(name for stage in _stages(None) for name in stage.equation.hyperparameters) - {
    "lr",
    "norm",
}
"""The hyperparameters that every optimizer has besides its rule's."""


def around_matrices(
    own: Collection[str], *, scaled: bool = False
) -> tuple[list[Stage], list[Stage], list[Stage]]:
    """Return the options that change the gradient, and those before and after the weight's change.

    Options that the rule has itself are left out.
    """
    without = OPTIONS & {*own}
    stages = [s for s in _stages(None, scaled) if not without & s.equation.hyperparameters.keys()]
    of_gradient = [stage for stage in stages if stage.writes == ("g",)]
    rest = [stage for stage in stages if stage not in of_gradient]
    change = 1 + next(k for k, stage in enumerate(rest) if stage.writes == (BEFORE,))
    return of_gradient, rest[:change], rest[change:]


def step_program(rule: Rule, *, scaled: bool = False) -> Program:
    """Return the program of one optimizer step with a rule, over the variables w, g and state.

    ``scaled`` if the gradient is that of a loss times ``grad_scale``.
    A rule that has a hyperparameter of an option's name (``weight_decay``) means it itself: the
    equations with that option are left out.
    """
    own = OPTIONS & rule.equation.hyperparameters.keys()
    return Program(
        [
            stage
            for stage in _stages(rule, scaled)
            if stage.equation is rule.equation or not own & stage.equation.hyperparameters.keys()
        ],
        private=("g", BEFORE),
    )
