"""Labels against features: do labels disagree where a baseline is sure.

Cost: one forest in cross-validation on the rows of the baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.learnable import Learnable, learnable


@dataclass(frozen=True)
class Labels:
    """How labels disagree with what cross-validation says of them.

    Attributes:
        wrong: the share of rows whose label is not the baseline's answer.
        rows: how many answers there are.
        wrong_where_sure: the same among the surest half of its answers. Classes that overlap
            disagree where the answer is unsure; labels that were changed disagree everywhere.
    """

    wrong: float
    wrong_where_sure: float
    rows: int

    @property
    def even(self) -> float:
        """Near 1 where labels disagree everywhere alike, near 0 where only at the borders."""
        return self.wrong_where_sure / self.wrong if self.wrong else 0.0

    def beyond(self, share: float) -> float:
        """Return by how many standard errors more than a share of the wrong ones is where it is sure."""
        sure = self.wrong_where_sure
        error = math.sqrt(max(sure * (1 - sure), 1e-12) / max(1, self.rows // 2))
        return (sure - share * self.wrong) / error


def labels(evidence: Evidence) -> Labels | None:
    """Compare labels with the baseline's answers; None for numbers or without a baseline."""
    seen = evidence.probe(learnable)
    return None if seen is None or not seen.labels else disagreement(seen)


def disagreement(seen: Learnable) -> Labels:
    """Take the shares; how sure an answer is comes from its lead over the second."""
    ordered = np.sort(seen.predicted, axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    wrong: NDArray[np.bool_] = seen.predicted.argmax(1) != seen.targets
    surest = np.argsort(-lead, kind="stable")[: len(lead) // 2]
    return Labels(float(wrong.mean()), float(wrong[surest].mean()), len(lead))
