"""Small programs with a known fault, their mended twins, and programs that are healthy.

The modules enter their functions into two tables, `CASES` and `HEALTHY`.
"""

from cases import (  # noqa: F401
    healthy_odd,
    healthy_plain,
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
from cases.healthy import HEALTHY, Control

__all__ = ["CASES", "HEALTHY", "Case", "Control"]
