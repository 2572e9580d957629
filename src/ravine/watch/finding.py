"""What a diagnosis finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ravine.errors import unknown_name

Severity = Literal["critical", "warning", "info"]
Confidence = Literal["high", "medium", "low"]

CODES: dict[str, str] = {
    "non-finite": "NON-FINITE",
    "exploding-gradient": "GRAD-EXPLODE",
    "vanishing-gradient": "GRAD-VANISH",
    "gradient-sign-flipped": "GRAD-SIGN",
    "missing-zero-grad": "GRAD-KEPT",
    "step-has-no-effect": "STEP-NONE",
    "optimizer-misses-parameters": "STEP-MISSES",
    "frozen-parameters": "STEP-FROZEN",
    "lr-too-high": "LR-HIGH",
    "lr-too-low": "LR-LOW",
    "too-few-epochs": "RUN-SHORT",
    "batch-too-small": "BATCH-SMALL",
    "noise-floor": "NOISE-FLOOR",
    "bad-init": "INIT-SCALE",
    "symmetric-init": "INIT-SAME",
    "dead-units": "UNIT-DEAD",
    "saturated-units": "UNIT-SATURATED",
    "unscaled-inputs": "DATA-INPUTS",
    "unscaled-targets": "DATA-TARGETS",
    "labels-corrupted": "DATA-LABELS",
    "unlearnable-data": "DATA-NOISE",
    "data-leak": "DATA-LEAK",
    "train-valid-mismatch": "DATA-SHIFT",
    "wrong-output-activation": "HEAD-ACTIVATION",
    "wrong-loss": "HEAD-LOSS",
    "double-softmax": "HEAD-SOFTMAX",
    "missing-nonlinearity": "MODEL-LINEAR",
    "model-too-small": "MODEL-SMALL",
    "dropout-misplaced": "MODEL-DROPOUT",
    "input-ignored": "MODEL-BLIND",
    "train-eval-gap": "MODEL-MODES",
    "uninformative-features": "DATA-COLUMNS",
    "label-imbalance": "DATA-BALANCE",
    "overfitting": "FIT-OVER",
    "underfitting": "FIT-UNDER",
    "over-regularised": "FIT-PENALTY",
    "saddle-point": "FLAT-SADDLE",
    "plateau": "FLAT-PLATEAU",
    "stationary-point": "FLAT-STATIONARY",
}
"""The stable code of each finding, by its name."""

_ORDER = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Trial:
    """A remedy that was tried: a replay with it beside one without, for each seed.

    Attributes:
        remedy: what was changed, as a sentence of the imperative.
        before, after: the measure over the seeds, without and with it.
        measure: what was measured, such as "train/loss"; lower is better unless it says "accuracy"
            or "R2".
        helped: whether it is better than chance and, where there is one, clearly than the control.
        control: what a change drawn at random that treats nothing reached, with the same seeds; ()
            where nothing helped that had to be told from it, or no time was left.
        control_remedy: that change.
    """

    remedy: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    measure: str
    helped: bool
    control: tuple[float, ...] = ()
    control_remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth knowing.

    Attributes:
        name: what, such as "vanishing-gradient".
        severity: "critical" (training cannot work), "warning" (it is worse for it), "info".
        confidence: "high" (seen in a replay or by a proof), "medium", "low".
        root: whether it is a cause; False for what another finding explains.
        where: the weight, module, part of the data; or "".
        steps: the first and last step at which it was seen, or None.
        evidence: what was measured, by name.
        says: one sentence with the measured numbers.
        ruled_out: other causes that were looked for and not found, as sentences.
        treatments: what was tried.
    """

    name: str
    severity: Severity
    confidence: Confidence
    says: str
    root: bool = True
    where: str = ""
    steps: tuple[int, int] | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    ruled_out: tuple[str, ...] = ()
    treatments: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in CODES:
            raise unknown_name("finding", self.name, CODES)

    @property
    def code(self) -> str:
        """The stable code, such as "GRAD-VANISH"."""
        return CODES[self.name]

    @property
    def rank(self) -> int:
        """0 for critical, 1 for a warning, 2 for information."""
        return _ORDER[self.severity]


class FindingWarning(UserWarning):
    """A watch found something; the message begins with the finding's code."""


def text_of(finding: Finding) -> str:
    """Return a finding as a line, with where to read on."""
    return f"{finding.code} {finding.name}: {finding.says} (ravine explain {finding.code})"
