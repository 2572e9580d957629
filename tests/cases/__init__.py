"""Small programs with a known fault, their mended twins, and programs that are healthy."""

from cases import (
    made_capacity,
    made_data,
    made_heads,
    made_landscapes,
    made_scales,
    made_signals,
    made_steps,
    published,
    published_tools,
)
from cases.case import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "made_capacity",
    "made_data",
    "made_heads",
    "made_landscapes",
    "made_scales",
    "made_signals",
    "made_steps",
    "published",
    "published_tools",
]
