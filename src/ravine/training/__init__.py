"""Training: the loop, its events and the record of a run."""

from __future__ import annotations

from ravine.training.record import History, Record
from ravine.training.train import train

__all__ = ["History", "Record", "train"]
