"""Numbers and names as a person reads them; shared by the page and the terminal."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["PARTS", "as_number", "duration", "epoch_number", "label", "number", "share"]

PARTS = {"train": "training", "valid": "validation", "test": "test"}
"""The parts of the data, as keys of a record spell them and as words."""

_LABELS = {
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
    "cpu": "CPU",
    "gpu": "GPU",
    "cuda": "CUDA",
}


def as_number(value: Any) -> float:
    """Read a number from a record; whatever is none (missing, text) becomes NaN.

    >>> as_number("Infinity"), as_number(3), as_number(None)
    (inf, 3.0, nan)
    """
    if value is None or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def number(value: Any) -> str:
    """Write a value shortly: four digits for a float, groups of three for an integer.

    >>> number(12345), number(0.123456), number(float("nan")), number(None)
    ('12,345', '0.1235', 'NaN', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if abs(value) >= 1000 and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def epoch_number(epoch: float) -> str:
    """Write the number of an epoch in full.

    >>> epoch_number(1234567.0)
    '1,234,567'
    """
    return number(int(epoch) if float(epoch).is_integer() else epoch)


def share(value: float) -> str:
    """Write a share of one as a percentage.

    >>> share(0.98061)
    '98.06 %'
    """
    return f"{100 * value:.2f} %" if math.isfinite(value) else number(value)


def duration(seconds: float) -> str:
    """Write a time span with the units that matter.

    >>> duration(3.21), duration(75), duration(7384)
    ('3.2 s', '1:15 min', '2:03 h')
    """
    if not math.isfinite(seconds):
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def label(key: str) -> str:
    """Turn a key of a record into words.

    >>> label("valid/accuracy"), label("samples_per_second"), label("lr")
    ('validation accuracy', 'samples per second', 'learning rate')
    """
    split, slash, name = key.partition("/")
    if slash and split in PARTS:
        return f"{PARTS[split]} {label(name)}"
    return _LABELS.get(key, key.replace("_", " "))
