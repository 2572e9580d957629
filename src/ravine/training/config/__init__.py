"""Hyperparameters in a file: read, joined with the command line, written back."""

from __future__ import annotations

from ravine.training.config.configuration import Configuration, configure, read_config
from ravine.training.config.resolved import resolve, to_text

__all__ = ["Configuration", "configure", "read_config", "resolve", "to_text"]
