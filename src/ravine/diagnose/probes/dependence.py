"""Whether the output depends on the input. Cost: two forward passes of 64 rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import at_end

ROWS = 64


@dataclass(frozen=True)
class Dependence:
    """How far outputs differ between rows, as a share of their own size.

    Attributes:
        first, last: the largest difference between two rows' outputs over the largest output,
            before the first step and after the last.
        rows: how many different rows were compared.
    """

    first: float
    last: float
    rows: int


def dependence(evidence: Evidence) -> Dependence:
    """Compare the outputs of different rows, in evaluation mode."""
    inputs = torch.unique(evidence.sample[0][:ROWS], dim=0)
    shares = []
    for fresh in (evidence.fresh(), at_end(evidence)):
        fresh.model.eval()
        with torch.no_grad():
            output = fresh.model(inputs).double()
        apart = (output.amax(0) - output.amin(0)).abs().max()
        shares.append(float(apart / output.abs().max().clamp(min=1e-300)))
    return Dependence(shares[0], shares[1], len(inputs))
