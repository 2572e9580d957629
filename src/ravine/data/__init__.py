"""Data that need not fit into memory: arrays, memory-mapped files, texts, Parquet and Arrow files.

Each is a `Source`: a task takes it as its train, valid or test part. The order of the rows in an
epoch follows from the seed and the epoch's number alone, so a run that was killed goes on at any
batch without reading those before it.
"""

from __future__ import annotations

from ravine.data.arrays import Arrays
from ravine.data.characters import Characters
from ravine.data.order import Windowed, epoch_order, mixed
from ravine.data.rows import RowSource, Selected
from ravine.data.source import Source
from ravine.data.table import Table
from ravine.data.tokens import Tokens

__all__ = [
    "Arrays",
    "Characters",
    "RowSource",
    "Selected",
    "Source",
    "Table",
    "Tokens",
    "Windowed",
    "epoch_order",
    "mixed",
]
