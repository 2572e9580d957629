"""The multi-class hinge losses class by class in Python's floats: ties, infinities and NaN as they are."""

from __future__ import annotations

import math
from itertools import product

import torch

INF, NAN = math.inf, math.nan
HARD = torch.tensor(
    [row for row in product((0.0, -0.0, 1.0, 2.0, INF, -INF, NAN), repeat=3) if row[0] is not NAN]
    + [
        (NAN, 0.0, NAN),
        (NAN, 0.0, 0.0),
        (NAN, NAN, INF),
        (1e9, 1e9, -1e9),
        (6e4, -6e4, 6e4),
        (3e38, -3e38, 3e38),
    ]
)
"""Rows of three scores: every tie and infinity, NaN, and differences that overflow float32."""


def _difference(a, b):
    return 0.0 if a == b else a - b


def crammer_singer(x, y):
    slopes = [0.0] * len(x)
    rivals = [k for k in range(len(x)) if k != y]
    unknown = [k for k in rivals if math.isnan(x[k])]
    worst = unknown[0] if unknown else max(rivals, key=lambda k: x[k])  # the first of equal ones
    margin = 1 + _difference(x[worst], x[y])
    if margin <= 0:
        return 0.0, slopes
    slopes[worst], slopes[y] = (NAN, NAN) if math.isnan(margin) else (1.0, -1.0)
    return margin, slopes


def weston_watkins(x, y, p, margin, times):
    share, slopes = times / len(x), [0.0] * len(x)
    close = {k: margin + _difference(v, x[y]) for k, v in enumerate(x) if k != y}
    close = {k: v for k, v in close.items() if not v <= 0}
    loss = share * sum(v if p == 1 else v * v for v in close.values())
    for k, v in close.items():
        slopes[k] = share * (1 if p == 1 else 2 * v)
    slopes[y] = -share * sum(1 if p == 1 else 2 * v for v in close.values()) if close else 0.0
    return loss, [NAN] * len(x) if math.isnan(loss) else slopes


def by_hand(x, target, factor=None, p=0, margin=1.0, times=None):
    """Return losses and slopes of rows in float64; ``p`` is 0 for Crammer and Singer."""
    found = []
    for row, (scores, y) in enumerate(zip(x.double().tolist(), target.tolist(), strict=True)):
        weight = 1.0 if factor is None else float(factor[row])
        if weight == 0:
            found.append((0.0, [0.0] * len(scores)))
            continue
        if p == 0:
            loss, slopes = crammer_singer(scores, y)
        else:
            of_class = 1.0 if times is None else float(times[y])
            loss, slopes = weston_watkins(scores, y, p, margin, of_class)
        found.append((weight * loss, [weight * v for v in slopes]))
    losses, slopes = zip(*found, strict=True)
    made = [torch.tensor(v, dtype=torch.float64, device=x.device) for v in (losses, slopes)]
    return made[0], made[1]
