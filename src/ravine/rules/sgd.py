"""SGD with torch's momentum, dampening and Nesterov."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ravine.engine.functions import where
from ravine.errors import ArgumentError
from ravine.rules.rule import rule


def _check(group: Mapping[str, Any]) -> None:
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ArgumentError(
            "Nesterov's look-ahead needs a momentum and no dampening",
            got=f"momentum={group['momentum']}, dampening={group['dampening']}",
            expected="momentum > 0 and dampening = 0",
        )


@rule("SGD", state_names={"b": "momentum_buffer"}, moments={"b": "signed"}, check=_check)
def sgd(w, g, b, *, t, lr=1e-3, momentum=0.0, dampening=0.0, nesterov=False):
    """Stochastic gradient descent with torch's momentum, dampening and Nesterov's look-ahead.

    Equation:
        b <- g at the first step, then momentum b + (1 - dampening) g
        d  = g + momentum b  with nesterov, else  b  with momentum, else  g
        w <- w - lr d

    Differs from: the textbook's momentum (`ravine.optim.Momentum`) weighs g by 1 - beta, also at the
    first step. Keras keeps lr inside the velocity. optax's ``trace`` has no dampening.

    Source: Sutskever et al. 2013; `torch.optim.SGD`.
    """
    d = g
    if momentum != 0:
        b = where(t == 1, g, momentum * b + (1 - dampening) * g)
        d = b
        if nesterov:
            d = g + momentum * b
    return w - lr * d, b
