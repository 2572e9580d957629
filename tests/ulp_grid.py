"""Largest errors of the elementwise losses in float32, against mpmath, over a grid of extremes."""

from __future__ import annotations

import mpmath
import torch
from loss_row import Row
from test_losses_numbers import loss_of

SIZES = (
    0.0, 1e-45, 1e-40, 1e-30, 1e-10, 1e-4, 0.0999, 0.25, 0.5, 0.75, 1 - 2.0**-24, 1.0, 1 + 2.0**-23,
    1.0986, 2.0, 3.1, 17.0, 50.0, 88.0, 104.0, 1e4, 1e9, 1e30, 3e38,
)  # fmt: skip
INPUTS = tuple(sign * size for size in SIZES for sign in (1.0, -1.0))

_POSITIVE = (1e-45, 1e-30, 0.25, 1.0, 3.0, 1e4, 3e38)
_TARGETS = {
    "binary_cross_entropy": (0.0, 1.0, 0.25, 1e-30),
    "focal": (0.0, 1.0, 0.25, 1e-30),
    "asymmetric": (0.0, 1.0, 0.25, 1e-30),
    "hinge": (-1.0, 1.0),
    "squared_hinge": (-1.0, 1.0),
    "perceptron": (-1.0, 1.0),
    "poisson": (0.0, *_POSITIVE),
    "gamma": _POSITIVE,
    "tweedie": _POSITIVE,
    "kl_divergence": (0.0, *_POSITIVE),
}
_NUMBERS = (0.0, 1e-45, 1e-30, 0.5, 1.0, -3.0, 1e4, 3e38, -3e38)
_LARGEST = torch.finfo(torch.float32).max


def grid(row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets, each with each."""
    targets = _TARGETS.get(row.loss, _NUMBERS)
    if row.options.get("log_target"):
        targets = tuple(-v for v in _POSITIVE if v < 1e30)
    inputs = INPUTS if row.options.get("log_input", True) else [v for v in INPUTS if v > 0]
    x, y = torch.meshgrid(torch.tensor(inputs), torch.tensor(targets), indexing="ij")
    return x.flatten(), y.flatten()


def exact_of(row: Row, x: torch.Tensor, y: torch.Tensor):
    """Return value and slope of every point at 120 digits: 1e38 + 1e-45 needs 84."""
    with mpmath.workdps(120):
        pairs = zip(x.tolist(), y.tolist(), strict=True)
        found = [row.exact([mpmath.mpf(a)], mpmath.mpf(b)) for a, b in pairs]
        return [value for value, _ in found], [slopes[0] for _, slopes in found]


def ours(row: Row, x: torch.Tensor, y: torch.Tensor):
    """Return value and slope of every point from the one pass."""
    z = x.clone().requires_grad_()
    value = loss_of(row, z, y, reduction="none")
    value.backward(torch.ones_like(value))
    return value.detach(), z.grad


def torchs(row: Row, x: torch.Tensor, y: torch.Tensor):
    """Return the same from torch in float32: its function, or the formula as it is written."""
    z = x.clone().requires_grad_()
    value = row.oracle(z, y).float()
    value.backward(torch.ones_like(value))
    return value.detach(), z.grad


def ulp(found: float, exact, floor=0.0):
    """Return the error in units of the last place; ``floor``: the least size of what is rounded."""
    size = max(abs(exact), abs(mpmath.mpf(floor)))
    if size >= mpmath.mpf(_LARGEST) * (1 + mpmath.mpf(2) ** -25):
        right = abs(found) == float("inf") and (found > 0) == (exact > 0)
        return 0.0 if right else float("inf")
    if found != found or abs(found) == float("inf"):
        return float("inf")
    place = mpmath.floor(mpmath.log(size, 2)) if size > 0 else -126
    unit = mpmath.mpf(2) ** (max(place, -126) - 23)
    return float(abs(mpmath.mpf(found) - exact) / unit)


def worst(row: Row, x, y, found, exact) -> tuple[float, float]:
    """Return the largest error of values and of slopes.

    The slope of binary cross-entropy for a target between 0 and 1 crosses zero as the difference of
    two numbers; its error is measured in units of those.
    """
    errors = [0.0, 0.0]
    with mpmath.workdps(120):
        for k in range(len(x)):
            a, b = x[k].item(), y[k].item()
            soft = row.loss == "binary_cross_entropy" and 0 < b < 1
            floor = mpmath.mpf(b) / (1 + mpmath.exp(a)) if soft else 0.0
            for part in (0, 1):
                error = ulp(found[part][k].item(), exact[part][k], floor if part else 0.0)
                errors[part] = max(errors[part], error)
    return errors[0], errors[1]
