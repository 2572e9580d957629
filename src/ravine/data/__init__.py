"""Data: the order of its rows, decided by seed and epoch alone."""

from __future__ import annotations

from ravine.data.order import epoch_order, mixed

__all__ = ["epoch_order", "mixed"]
