"""What types of elements the compiled executors read and write, and what they compute in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

STORED_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def supports(dtype: torch.dtype) -> bool:
    """Whether tensors of this type can be read and written by a kernel."""
    return dtype in STORED_TYPES


def number_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of the arithmetic for elements of one type."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def words_of(dtype: torch.dtype) -> tuple[str, str]:
    """Return what `ravine.engine.kernel_language` calls the type of the arithmetic, and that in memory."""
    number, stored = (str(kind).removeprefix("torch.") for kind in (number_type(dtype), dtype))
    return number, stored


def compute_type(types: Mapping[str, Any]) -> str:
    """Return the type of the arithmetic: float64 if any variable's type is, else float32.

    A total has no place in memory, so its type only says in what it is computed.
    """
    return "float64" if torch.float64 in types.values() else "float32"
