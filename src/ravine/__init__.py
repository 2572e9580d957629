"""Ravine: the optimisation layer of deep learning for PyTorch.

Build with `ravine.optim`, `ravine.losses`, `ravine.schedules` and `ravine.regularize`; write a rule of
your own with `ravine.update_rule`; train a `ravine.Task` with `ravine.train`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ravine import data, diagnose, errors, losses, optim, regularize, schedules, tasks, watch
    from ravine.optim import update_rule
    from ravine.tasks import Task
    from ravine.training.config import read_config
    from ravine.training.find_lr import find_lr
    from ravine.training.train import train

__version__ = "0.1.0"

__all__ = [
    "Task",
    "data",
    "diagnose",
    "errors",
    "find_lr",
    "losses",
    "optim",
    "read_config",
    "regularize",
    "schedules",
    "tasks",
    "train",
    "update_rule",
    "watch",
]

# Loaded when first asked for, so that importing ravine costs next to nothing.
_HOMES = {
    "update_rule": "ravine.optim",
    "Task": "ravine.tasks",
    "train": "ravine.training",
    "find_lr": "ravine.training.find_lr",
    "read_config": "ravine.training.config",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"ravine.{name}")
    raise AttributeError(f"module 'ravine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
