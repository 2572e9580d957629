"""Schedule-free SGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ravine.engine.functions import maximum, minimum, where
from ravine.errors import ArgumentError
from ravine.rules.rule import rule


def to_evaluation(w, z, *, momentum):
    """From y, where gradients are taken, to the average x."""
    return w + (1 - 1 / momentum) * (z - w)


def to_training(w, z, *, momentum):
    """From the average x to y."""
    return w + (1 - momentum) * (z - w)


def _check(group: Mapping[str, Any]) -> None:
    if group["weight_decay"] != 0 and group["decay"] != "coupled":
        raise ArgumentError(
            "a decay of the weights alone would leave their average behind",
            got=f"decay={group['decay']!r}",
            expected="decay='coupled', which acts through the gradient",
        )


@rule(
    "ScheduleFreeSGD",
    check=_check,
    initial={"z": "w"},
    numbers={"weight_sum": 0.0, "lr_max": 0.0},
    evaluation=(to_evaluation, to_training),
    bounds={
        "momentum": ("a number in (0, 1)", lambda x: 0 < x < 1),
        "warmup_steps": ("a number >= 0", lambda x: x >= 0),
    },
)
def schedule_free_sgd(
    w, g, z, *, t, weight_sum, lr_max, lr=1.0, momentum=0.9, warmup_steps=0, r=0.0,
    weight_lr_power=2.0,
):  # fmt: skip
    """Schedule-free SGD: a constant learning rate, and an average in the place of its decay.

    Equation:
        step = lr min(1, t / warmup_steps),   c = a_t / (a_1 + ... + a_t),
        a_t  = t^r (largest step so far)^weight_lr_power
        w <- w + c (z - w) - step (1 - momentum (1 - c)) g
        z <- z - step g
        x  = w + (1 - 1 / momentum) (z - w)   is the average, put in place by ``optimizer.eval()``

    w is the point between z and x where gradients are taken. Call ``optimizer.eval()`` before the
    model is evaluated or saved, and ``optimizer.train()`` before training goes on.

    Differs from: the authors' package starts in evaluation, here training can begin at once; its
    weight decay is ``weight_decay`` here too, with the decay at w.

    Source: Defazio et al. 2024, equations 5 to 7; the package schedulefree.
    """
    step = lr * minimum(1.0, t / maximum(warmup_steps, 1))
    lr_max = maximum(lr_max, step)
    weight = t**r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    c = where(weight_sum > 0, weight / weight_sum, 0.0)
    w = w + c * (z - w) - step * (1 - momentum * (1 - c)) * g
    return w, z - step * g, weight_sum, lr_max
