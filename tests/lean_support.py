"""What the tests of lean formats share: a rule that only holds numbers, and the map written out.

The map is built here from its definition as a table in float64, and shares no code with the engine.
"""

from __future__ import annotations

import numpy as np
import torch

import ravine
from ravine.optim import lean_state

BLOCK = 256
OCTAVES = {"signed": 16, "nonnegative": 32}


@ravine.update_rule(moments={"m": "signed", "v": "nonnegative"})
def holder(w, g, m, v, *, lr=0.0):
    """Hold the gradient and its magnitude."""
    return w - lr * g, g, abs(g)


def hold(values, state_dtype, *, backend="cpu", seed=0, steps=1):
    """Return the optimizer's state after it has held the values as both moments."""
    w = torch.nn.Parameter(torch.zeros_like(values))
    optimizer = holder([w], state_dtype=state_dtype, backend=backend, rounding_seed=seed)
    for _ in range(steps):
        w.grad = values.clone()
        optimizer.step()
    return optimizer.state[w]


def table(kind):
    """Return the values of all codes of a magnitude under a scale of 1."""
    codes = np.arange(8 * OCTAVES[kind])
    return 2.0 ** (1 + codes // 8) * (1 + codes % 8 / 8) - 2


def smallest_scale(largest, kind):
    """Return the scale that a block with this largest magnitude asks for."""
    if largest == 0:
        return 2.0**-123
    mantissa, exponent = np.frexp(largest)  # in [0.5, 1)
    rounded = np.ceil(mantissa * 16) / 16 * 2.0**exponent
    power = exponent - 1 if rounded <= 1.75 * 2.0 ** (exponent - 1) else exponent
    return max(2.0 ** float(power - OCTAVES[kind]), 2.0**-123)


def numbers(state, name, kind):
    """Return what the codes of a state stand for, in float64 and in the order of memory."""
    codes = lean_state.flat(state[f"{name}_codes"]).numpy().astype(np.int64)
    scales = np.repeat(state[f"{name}_scales"].double().numpy(), BLOCK)[: len(codes)]
    if kind == "nonnegative":
        return table(kind)[codes] * scales
    return np.where(codes >= 128, -1, 1) * table(kind)[codes % 128] * scales


def neighbours(x, scale, kind):
    """Return the codes' values below and above magnitudes."""
    values = table(kind) * scale
    above = np.searchsorted(values, x)  # the first that is not smaller
    exact = values[np.minimum(above, len(values) - 1)] == x
    return values[np.where(exact, above, above - 1)], values[above]
