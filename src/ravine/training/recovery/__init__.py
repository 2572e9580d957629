"""What a run does about numbers that are not finite, and about a loss that runs away."""

from __future__ import annotations

from ravine.training.recovery.policy import NONFINITE, Nonfinite, check_policy
from ravine.training.recovery.skipping import Skipper

__all__ = ["NONFINITE", "Nonfinite", "Skipper", "check_policy"]
