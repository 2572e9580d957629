"""What a diagnosis finds."""

from ravine.watch.finding import CODES, Confidence, Finding, Severity, Trial

__all__ = ["CODES", "Confidence", "Finding", "Severity", "Trial"]
