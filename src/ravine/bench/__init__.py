"""Measures Ravine against what else is installed, on the machine at hand: see `ravine bench`."""

from __future__ import annotations

from ravine.bench.loss_peers import LOSSES, SIZES
from ravine.bench.losses import bench_losses
from ravine.bench.steps import MODELS, RULES, bench_steps

__all__ = ["LOSSES", "MODELS", "RULES", "SIZES", "bench_losses", "bench_steps"]
