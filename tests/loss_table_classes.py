"""The rows of the table of losses for losses over classes that are made of others; see `loss_table`.

Imported by the table alone, which has what a row is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import torch
import torch.nn.functional as F
from loss_table import CONFIDENT, INF, Row, classes
from torch import Tensor


def focal_by_torch(gamma: float, alpha: Any = None) -> Callable[[Tensor, Tensor], Tensor]:
    def oracle(x: Tensor, y: Tensor) -> Tensor:
        log_p = torch.log_softmax(x, -1).gather(-1, y[..., None])[..., 0]
        times = 1.0 if alpha is None else torch.tensor(alpha, dtype=torch.float64)[y]
        return -times * (1 - log_p.exp()) ** gamma * log_p

    return oracle


def poly_by_torch(epsilon: float, class_weight: Any = None) -> Callable[[Tensor, Tensor], Tensor]:
    def oracle(x: Tensor, y: Tensor) -> Tensor:
        p = torch.softmax(x, -1).gather(-1, y[..., None])[..., 0]
        times = 1.0 if class_weight is None else torch.tensor(class_weight).double()[y]
        return times * (-p.log() + epsilon * (1 - p))

    return oracle


def margins_by_torch(**options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return torch's multi-class hinge of scores with any leading shape."""
    options = dict(options)
    if "class_weight" in options:
        options["weight"] = torch.tensor(options.pop("class_weight"), dtype=torch.float64)
    options = {"reduction": "none", **options}

    def oracle(x: Tensor, y: Tensor) -> Tensor:
        if not y.numel():
            return x.sum(-1)
        found = F.multi_margin_loss(x.reshape(-1, x.shape[-1]), y.reshape(-1), **options)
        return found if found.ndim == 0 else found.reshape(y.shape)

    return oracle


def exact_of_cross_entropy(curve, numbers=None):
    """Return times_y curve(c), with curve -> value and slope by c and 1 - p, and p_k - [k = y]."""

    def exact(x, y):
        top = max(x)
        parts = [mpmath.exp(v - top) for v in x]
        total = mpmath.fsum(parts)
        miss = mpmath.fsum(v for k, v in enumerate(parts) if k != y) / total
        value, slope = curve(
            -mpmath.log1p(-miss) if miss < 0.5 else mpmath.log(total) + top - x[y], miss
        )
        times = 1 if numbers is None else numbers[y]
        slopes = [times * slope * (-miss if k == y else v / total) for k, v in enumerate(parts)]
        return times * value, slopes

    return exact


def exact_focal(gamma, alpha=None):
    def curve(c, miss):
        if miss == 0:
            return mpmath.mpf(0), mpmath.mpf(gamma == 0)
        return miss**gamma * c, miss**gamma + gamma * miss ** (gamma - 1) * (1 - miss) * c

    return exact_of_cross_entropy(curve, alpha)


def exact_poly(epsilon, class_weight=None):
    curve = lambda c, miss: (c + epsilon * miss, 1 + epsilon * (1 - miss))  # noqa: E731
    return exact_of_cross_entropy(curve, class_weight)


def exact_margins(p=1, margin=1.0, class_weight=None):
    def exact(x, y):
        times = mpmath.mpf(1 if class_weight is None else class_weight[y]) / len(x)
        close = [mpmath.mpf(0) if k == y else max(0, margin + v - x[y]) for k, v in enumerate(x)]
        slopes = [times * (p * v if p == 2 else mpmath.sign(v)) for v in close]
        slopes[y] = -mpmath.fsum(slopes)
        return times * mpmath.fsum(v**p for v in close), slopes

    return exact


CLASS_ROWS: list[Row] = [
    *(
        Row(
            "categorical_focal",
            options,
            classes,
            focal_by_torch(**options),
            exact_focal(**options),
            CONFIDENT,
            ulp=(2.5, 3.5),
            rows=True,
            infinite=(
                ((INF, 0.0, 0.0), 0, 0.0, (0.0, 0.0, 0.0)),
                ((0.0, -INF, -INF), 1, INF, (1.0, -1.0, 0.0)),
            )
            if "alpha" not in options
            else (),
        )
        for options in (
            {"gamma": 2.0},
            {"gamma": 0.5},
            {"gamma": 0},
            {"gamma": 1.5, "alpha": [0.5, 2.0, 1.0, 0.25, 3.0]},
        )
    ),
    *(
        Row(
            "poly",
            options,
            classes,
            poly_by_torch(**options),
            exact_poly(**options),
            CONFIDENT,
            ulp=(2.0, 2.0),
            rows=True,
            infinite=(
                ((INF, 0.0, 0.0), 0, 0.0, (0.0, 0.0, 0.0)),
                ((0.0, -INF, -INF), 1, INF, (1.0, -1.0, 0.0)),
            )
            if "class_weight" not in options
            else (),
        )
        for options in (
            {"epsilon": 1.0},
            {"epsilon": -0.5, "class_weight": [0.5, 2.0, 1.0, 0.25, 3.0]},
        )
    ),
    *(
        Row(
            "multi_margin",
            options,
            classes,
            margins_by_torch(**options),
            exact_margins(**options),
            CONFIDENT,
            mean=margins_by_torch(reduction="mean", **options),
            ulp=(2.0, 2.0),
            rows=True,
            infinite=(
                ((INF, 0.0, 0.0), 0, 0.0, (0.0, 0.0, 0.0)),
                ((0.0, -INF, -INF), 0, 0.0, (0.0, 0.0, 0.0)),
            )
            if "class_weight" not in options
            else (),
            extra={"counts": True},
        )
        for options in (
            {"p": 1},
            {"p": 2, "margin": 0.5, "class_weight": [0.5, 2.0, 1.0, 0.25, 3.0]},
        )
    ),
]
