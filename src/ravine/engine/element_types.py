"""What types of elements the compiled executors read and write, and what they compute in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

STORED_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def supports(dtype: torch.dtype) -> bool:
    """Whether tensors of this type can be read and written by a kernel."""
    return dtype in STORED_TYPES


def compute_type(types: Mapping[str, Any]) -> str:
    """Return the type of the arithmetic: float64 if any variable's type is, else float32.

    A total has no place in memory, so its type only says in what it is computed.
    """
    return "float64" if torch.float64 in types.values() else "float32"
