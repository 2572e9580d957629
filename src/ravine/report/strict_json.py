"""JSON that every reader accepts, although losses may be NaN or infinite.

Python's ``json`` writes bare ``NaN`` and ``Infinity``, which JSON does not have and most readers
refuse. They are written here as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` (the
convention of Protocol Buffers), which ``float()`` in Python and ``Number()`` in JavaScript read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

__all__ = ["to_strict_json"]


def to_strict_json(value: Any, *, indent: int | None = None) -> str:
    """Write plain data as strict JSON; NaN and infinities become strings.

    Args:
        value: mappings, lists, tuples, strings, numbers, booleans, None; a number of NumPy or a
            tensor of one element counts as a number, a path as its text.
        indent: spaces per level, or None for one line.

    Returns:
        The text, without a line end.

    Raises:
        TypeError: for anything else, as ``json.dumps`` does.

    >>> to_strict_json({"loss": float("nan"), "lr": 0.1})
    '{"loss": "NaN", "lr": 0.1}'
    """
    return json.dumps(_strict(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if not isinstance(value, float) and callable(item := getattr(value, "item", None)):
        return _strict(item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
