"""The command ``ravine``: words, tables and a live line; it computes nothing."""

from __future__ import annotations

from ravine.cli.app import build_app, main

__all__ = ["build_app", "main"]
