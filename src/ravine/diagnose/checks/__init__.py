"""One family of findings a file. A check is a generator of suspicions from the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ravine.diagnose.checks.architecture import architecture_checks
from ravine.diagnose.checks.columns import column_checks
from ravine.diagnose.checks.data import data_checks
from ravine.diagnose.checks.fit import fit_checks
from ravine.diagnose.checks.flat import flat_checks
from ravine.diagnose.checks.head import head_checks
from ravine.diagnose.checks.inputs import input_checks
from ravine.diagnose.checks.layers import layer_checks
from ravine.diagnose.checks.loss import loss_checks
from ravine.diagnose.checks.outputs import output_checks
from ravine.diagnose.checks.rates import rate_checks
from ravine.diagnose.checks.regularisation import regularisation_checks
from ravine.diagnose.checks.stepping import stepping_checks
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.suspicion import Suspicion

Check = Callable[[Evidence], Iterator[Suspicion]]

CHECKS: list[Check] = [
    stepping_checks,
    head_checks,
    loss_checks,
    input_checks,
    layer_checks,
    architecture_checks,
    regularisation_checks,
    rate_checks,
    flat_checks,
    fit_checks,
    data_checks,
    output_checks,
    column_checks,
]
"""In the order of their cost."""
