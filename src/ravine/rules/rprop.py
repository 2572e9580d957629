"""Rprop: resilient backpropagation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ravine.engine.functions import maximum, minimum, where
from ravine.errors import ArgumentError
from ravine.rules.rule import rule


def _check(group: Mapping[str, Any]) -> None:
    low, high = group["step_sizes"]
    if low > high:
        raise ArgumentError(
            "the smallest step size of Rprop is larger than the largest",
            got=f"step_sizes=({low}, {high})",
            expected="(smallest, largest)",
        )


@rule(
    "Rprop",
    state_names={"before": "prev", "size": "step_size"},
    initial={"size": "lr"},
    bounds={
        "etas": ("numbers with 0 < first < 1 < second", lambda x: 0 < x[0] < 1 < x[1]),
        "step_sizes": ("numbers >= 0", lambda x: min(x) >= 0),
    },
    check=_check,
)
def rprop(w, g, before, size, *, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50)):
    """Rprop: a step size for every weight, that grows while the sign of the gradient stays.

    Equation:
        size <- size eta+        where g and the one before have the same sign
        size <- size eta-, g <- 0   where they have not (and the next one is taken as new)
        size <- min(max(size, step_sizes[0]), step_sizes[1])
        w <- w - size sign(g)

    The step sizes start at lr; a later change of lr does nothing. Meant for gradients over all the
    data: with mini-batches the signs say little.

    Differs from: Rprop+ takes back the last step where the sign turns; this one (iRprop-, as in
    torch) does not.

    Source: Riedmiller & Braun 1993; Igel & Hüsken 2000 for this form; `torch.optim.Rprop`.
    """
    smaller, larger = etas
    turn = g * before
    size = where(turn > 0, size * larger, where(turn < 0, size * smaller, size))
    size = minimum(maximum(size, step_sizes[0]), step_sizes[1])
    g = where(turn < 0, 0.0, g)
    # Not size * sign(g), which is NaN for a gradient of NaN: torch's sign of it is 0.
    return w - where(g > 0, size, where(g < 0, -size, 0.0)), g, size
