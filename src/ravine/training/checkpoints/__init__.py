"""Checkpoints: the whole state of a run as files that are whole or not there."""

from ravine.training.checkpoints.folder import (
    DamageError,
    Position,
    read_checkpoint,
    write_checkpoint,
)
from ravine.training.checkpoints.led import Led
from ravine.training.checkpoints.memory import Memory
from ravine.training.checkpoints.places import Places
from ravine.training.checkpoints.store import Store

__all__ = [
    "DamageError",
    "Led",
    "Memory",
    "Places",
    "Position",
    "Store",
    "read_checkpoint",
    "write_checkpoint",
]
