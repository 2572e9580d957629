"""Adafactor: the root mean square of gradients from its row and column means."""

from __future__ import annotations

import torch

from ravine.engine.functions import maximum, minimum, sqrt, tensor_mean
from ravine.rules.matrix_rule import elementwise, matrices, matrix_rule


def take(g):
    return g


def divide(u, rows, columns, full, *, t, beta2_decay=-0.8, eps=(None, 1e-3)):
    least = torch.finfo(u.dtype).eps if eps[0] is None else eps[0]
    new = t**beta2_decay
    square = u * u
    if full is None:
        rows = rows.lerp(square.mean(-1, keepdim=True), new)
        columns = columns.lerp(square.mean(-2, keepdim=True), new)
        variance = rows @ columns / rows.mean(-2, keepdim=True).clamp(min=least)
    else:
        full = variance = full.lerp(square, new)
    return u * variance.clamp(min=least * least).rsqrt(), rows, columns, full


def step(w, u, *, t, lr=1e-2, eps=(None, 1e-3), d=1.0, weight_decay=0.0):
    _, least = eps
    rate = minimum(lr, 1 / sqrt(t)) * maximum(least, sqrt(tensor_mean(w * w)))
    too_long = maximum(1.0, sqrt(tensor_mean(u * u)) / d)
    return w * (1 - lr * weight_decay) - rate / too_long * u


def row_means(shape, like):
    return like.new_zeros((*shape[:-1], 1)) if len(shape) > 1 else None


def column_means(shape, like):
    return like.new_zeros((*shape[:-2], 1, shape[-1])) if len(shape) > 1 else None


adafactor = matrix_rule(
    "Adafactor",
    """Adafactor: Adam's second moment kept as row and column means; steps relative to the weights.

    Equation:
        R <- running mean of g^2 over columns, C <- over rows; the newest weighs t^beta2_decay
        V  = R C / max(mean R, eps1)        (a running mean of g^2 itself for 0 and 1 dimensions)
        u  = g / sqrt(max(V, eps1^2))
        w <- w - lr weight_decay w - min(lr, 1 / sqrt(t)) max(eps2, rms(w)) u / max(1, rms(u) / d)

    Rows and columns are the last two dimensions; rms is over one weight. eps is (eps1, eps2); eps1
    None is the spacing of numbers at 1 in the type computed in.

    Differs from: the paper and optax add eps1 to g^2 and sum where torch and this rule average. For
    bfloat16 weights torch has eps1 of bfloat16, this rule of float32, in which it computes.

    Source: Shazeer & Stern 2018, algorithms 4 and 5; `torch.optim.Adafactor`.
    """,
    elementwise(take, "u"),
    matrices(divide, "u", "rows", "columns", "full"),
    elementwise(step, "w"),
    kept={
        "rows": ("row_var", row_means),
        "columns": ("col_var", column_means),
        "full": ("variance", lambda shape, like: like.new_zeros(shape) if len(shape) < 2 else None),
    },
    bounds={
        "beta2_decay": ("a number <= 0", lambda x: x <= 0),
        "eps": (
            "numbers >= 0, the first or None",
            lambda x: (x[0] is None or x[0] >= 0) and x[1] >= 0,
        ),
        "d": ("a number >= 1", lambda x: x >= 1),
    },
)
