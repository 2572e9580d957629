"""One family of findings a file. A check is a generator of suspicions from the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ravine.diagnose.checks.head import head_checks
from ravine.diagnose.checks.inputs import input_checks
from ravine.diagnose.checks.rates import rate_checks
from ravine.diagnose.checks.stepping import stepping_checks
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.suspicion import Suspicion

Check = Callable[[Evidence], Iterator[Suspicion]]

CHECKS: list[Check] = [stepping_checks, head_checks, input_checks, rate_checks]
"""In the order of their cost."""
