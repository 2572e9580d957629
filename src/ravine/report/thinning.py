"""Fewer points that draw the same curve."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

__all__ = ["thin"]


def thin(values: Sequence[float], limit: int, *, keep: Collection[int] = ()) -> list[int]:
    """Choose about ``limit`` positions whose points draw the same picture as all of them.

    The sequence is cut into equal stretches; each gives its smallest and its largest finite value
    and its first value that is not finite, so that no spike and no gap is lost. The first and the
    last position and those in ``keep`` stay.

    Args:
        values: any length; NaN and infinities are allowed.
        limit: the number of positions wanted, at least 8; all stay when there are no more.
        keep: positions that must stay.

    Returns:
        Positions in rising order, at most ``limit + len(keep) + 2``.

    >>> thin([0.0] * 500 + [9.0] + [0.0] * 499, 8, keep=[7])[:4]
    [0, 7, 500, 501]
    """
    count = len(values)
    if count <= limit:
        return list(range(count))
    chosen = {0, count - 1, *(k for k in keep if 0 <= k < count)}
    stretches = max(limit // 3, 1)
    for i in range(stretches):
        low = high = broken = -1
        for j in range(i * count // stretches, (i + 1) * count // stretches):
            value = values[j]
            if not math.isfinite(value):
                broken = j if broken < 0 else broken
            else:
                if low < 0 or value < values[low]:
                    low = j
                if high < 0 or value > values[high]:
                    high = j
        chosen.update(j for j in (low, high, broken) if j >= 0)
    return sorted(chosen)
