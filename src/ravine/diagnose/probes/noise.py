"""The noise of the gradient at the end of the run. Cost: gradients of 32 small batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import at_end

SMALL, PARTS = 16, 32


@dataclass(frozen=True)
class Noise:
    """The simple noise scale, tr(Sigma) / norm(G)^2.

    Attributes:
        scale: the batch size at which noise and gradient are of equal size; infinite where the
            gradient cannot be told from its noise.
        batch: the program's batch size.
    """

    scale: float
    batch: int


def noise_scale(small: Sequence[Tensor], size: int) -> float:
    """Return tr(Sigma) / norm(G)^2 from gradients of batches of one size.

    Of two batch sizes, size and all together, with their mean squared norms n1 and n2:
    norm(G)^2 = (B2 n2 - B1 n1) / (B2 - B1), tr(Sigma) = (n1 - n2) / (1/B1 - 1/B2).

    >>> noise_scale([torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])], size=1)
    inf
    >>> noise_scale([torch.tensor([3.0, 1.0]), torch.tensor([3.0, -1.0])], size=1)
    0.25
    """
    rows = torch.stack([g.double() for g in small])
    n1, n2 = float(rows.square().sum(1).mean()), float(rows.mean(0).square().sum())
    b1, b2 = size, size * len(rows)
    signal = (b2 * n2 - b1 * n1) / (b2 - b1)
    trace = (n1 - n2) / (1 / b1 - 1 / b2)
    return trace / signal if signal > 0 else math.inf


def noise(evidence: Evidence) -> Noise | None:
    """Measure the noise scale at the end of the run; None if there are too few rows."""
    inputs, targets = evidence.sample
    fresh = at_end(evidence)
    fresh.model.eval()  # no dropout, and statistics of a batch would tie its rows together
    weights = [p for p in fresh.model.parameters() if p.requires_grad]
    size = max(1, min(SMALL, len(inputs) // 8))
    found = []
    for X, y in list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))[
        :PARTS
    ]:
        if len(X) < size:
            continue
        loss: Any = fresh.loss(fresh.model(X), y)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        found.append(torch.cat([g.detach().flatten() for g in gradients if g is not None]))
    if len(found) < 4 or not all(bool(torch.isfinite(g).all()) for g in found):
        return None
    batch = fresh.train.size if isinstance(fresh.train.size, int) else len(inputs)
    return Noise(noise_scale(found, size), batch)
