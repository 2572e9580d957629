"""Which finding is a cause, which is the sign of another, and what comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ravine.watch.finding import Finding

_SIGNALS = frozenset(
    {
        "vanishing-gradient",
        "exploding-gradient",
        "non-finite",
        "dead-units",
        "saturated-units",
        "noise-floor",
        "saddle-point",
        "input-ignored",
    }
)
_SIZE = frozenset({"model-too-small"})
_BEGINNING = frozenset({"saddle-point", "model-too-small", "lr-too-low", "too-few-epochs"})

EXPLAINS: dict[str, frozenset[str]] = {
    "gradient-sign-flipped": _SIGNALS | _SIZE | {"lr-too-high"},
    "missing-zero-grad": _SIGNALS | _SIZE | {"lr-too-high", "batch-too-small"},
    "optimizer-misses-parameters": _SIZE,
    "frozen-parameters": _SIZE,
    "step-has-no-effect": _SIGNALS | _SIZE | {"lr-too-low", "too-few-epochs"},
    "lr-too-high": _SIGNALS | _SIZE | {"batch-too-small"},
    "lr-too-low": _SIZE,
    "too-few-epochs": _SIZE | {"bad-init"},
    "unscaled-inputs": _SIGNALS | _SIZE | {"bad-init", "lr-too-high", "lr-too-low"},
    "unscaled-targets": _SIGNALS | _SIZE | {"bad-init", "lr-too-high", "lr-too-low"},
    "wrong-output-activation": _SIGNALS - {"non-finite"} | _SIZE,
    "double-softmax": _SIGNALS - {"non-finite"} | _SIZE,
    "missing-nonlinearity": _SIZE,
    "symmetric-init": _SIGNALS | _BEGINNING | {"bad-init"},
    "input-ignored": _SIZE | {"underfitting", "unlearnable-data"},
    "bad-init": _BEGINNING | {"input-ignored", "dead-units", "lr-too-high", "non-finite"},
    "vanishing-gradient": _BEGINNING | {"input-ignored", "saturated-units"},
    "exploding-gradient": _SIZE | {"lr-too-high", "non-finite"},
    "dead-units": _BEGINNING | {"input-ignored", "vanishing-gradient"},
    "saturated-units": _BEGINNING | {"input-ignored", "vanishing-gradient"},
    "saddle-point": _SIZE,
    "batch-too-small": frozenset({"noise-floor"}),
    "unlearnable-data": _SIZE | {"overfitting"},
    "labels-corrupted": frozenset({"overfitting"}),
    "train-valid-mismatch": frozenset({"overfitting"}),
}
"""By the name of a cause, the findings that it brings with it: where both are found, the second is
a sign of the first, unless the second explains the first too."""

SIGNS = frozenset({"plateau", "stationary-point"})
"""What any other finding explains."""


def ranked(found: Sequence[tuple[Finding, float]]) -> list[Finding]:
    """Return the findings, causes first, each group by how much speaks for it.

    Args:
        found: findings and how much speaks for each: the larger the better.
    """
    names = {finding.name for finding, _ in found if finding.rank < 2}
    marked = [(replace(one, root=not _explained(one.name, names)), much) for one, much in found]
    best: dict[str, float] = {}
    for finding, much in found:
        best[finding.name] = max(much, best.get(finding.name, much))
    marked = [(replace(f, root=f.root and much == best[f.name]), much) for f, much in marked]
    marked.sort(key=lambda pair: (not pair[0].root, pair[0].rank > 1, -pair[1]))
    return [finding for finding, _ in marked]


def is_sign(name: str) -> bool:
    """Return whether another finding may bring this one with it.

    >>> is_sign("non-finite"), is_sign("double-softmax")
    (True, False)
    """
    return any(name in brought for brought in EXPLAINS.values())


def _explained(name: str, names: set[str]) -> bool:
    others = names - {name}
    if name in SIGNS:
        return bool(others - SIGNS) or (name == "plateau" and "stationary-point" in others)
    mine = EXPLAINS.get(name, frozenset())
    return any(name in EXPLAINS.get(other, ()) for other in others - mine)
