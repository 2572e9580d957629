"""Measures Ravine against what else is installed, on the machine at hand: see `ravine bench`."""

from __future__ import annotations

from ravine.bench.steps import MODELS, RULES, bench_steps

__all__ = ["MODELS", "RULES", "bench_steps"]
