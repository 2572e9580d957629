"""RMSprop, with eps inside or outside of the root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ravine.engine.functions import sqrt
from ravine.errors import ArgumentError
from ravine.rules.rule import rule


def _check(group: Mapping[str, Any]) -> None:
    if group["centered"] and group["state_dtype"] != "float32":
        raise ArgumentError(
            "the variance v - a^2 does not stand rounding: it may become negative under the root",
            got=f"centered=True, state_dtype={group['state_dtype']!r}",
            expected="state_dtype='float32' with centered=True",
        )


@rule(
    "RMSprop",
    state_names={"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"},
    moments={"v": "nonnegative", "b": "signed"},
    check=_check,
)
def rmsprop(
    w,
    g,
    v,
    a,
    b,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    momentum=0.0,
    centered=False,
    eps_inside_sqrt=False,
):
    """RMSprop: the gradient divided by the root of its running mean square.

    Equation:
        v <- alpha v + (1 - alpha) g^2
        a <- alpha a + (1 - alpha) g,   u = v - a^2   (with centered; else u = v)
        d  = g / (sqrt(u) + eps)   or   g / sqrt(u + eps)   with eps_inside_sqrt
        b <- momentum b + d,            w <- w - lr b   (without momentum  w <- w - lr d)

    Differs from: the textbook and Keras have eps inside the root (``eps_inside_sqrt=True``), torch
    outside. Keras and optax decay by 0.9; Keras keeps lr inside the momentum. timm's TensorFlow
    variant starts v at 1.

    Source: Hinton 2012, lecture 6e; Graves 2013 for the centred form; `torch.optim.RMSprop`.
    """
    v = alpha * v + (1 - alpha) * g * g
    u = v
    if centered:
        a = a + (1 - alpha) * (g - a)
        u = v - a * a
    if eps_inside_sqrt:
        d = g / sqrt(u + eps)
    else:
        d = g / (sqrt(u) + eps)
    if momentum > 0:
        b = momentum * b + d
        d = b
    return w - lr * d, v, a, b
