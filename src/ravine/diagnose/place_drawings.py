"""Drawings of the place where a run stands: its curvature, and what steps from there gain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.place import Place, first_place, last_place


def _places(evidence: Evidence) -> Iterator[tuple[str, Place]]:
    for words, probe in (("at the start", first_place), ("at the end", last_place)):
        found = evidence.known(probe)
        if found is not None:
            yield words, found


def spectrum(evidence: Evidence) -> dict[str, Any] | None:
    """Return the eigenvalues of the Hessian with the share of all that each stands for."""
    places = [(words, place) for words, place in _places(evidence) if place.spectrum]
    if not places:
        return None
    told = [
        f"{words}: from {place.lowest:.3g} to {place.highest:.3g}, gradient norm "
        f"{place.gradient:.2g}"
        for words, place in places
    ]
    return {
        "kind": "spectrum",
        "name": "spectrum",
        "title": "Curvature: the spectrum of the Hessian",
        "axis": "eigenvalue (loss per weight squared)",
        "series": [
            {
                "name": words,
                "values": [value for value, _ in place.spectrum],
                "shares": [share for _, share in place.spectrum],
            }
            for words, place in places
        ],
        "summary": "; ".join(told) + ".",
        "caption": "Each line is an eigenvalue, as high as the share of all eigenvalues that it "
        "stands for. Lines left of 0 are directions in which the loss bends down. Most weights of "
        "any network lie near 0: that alone says nothing; how far the lowest reaches out does.",
    }


def falls(evidence: Evidence) -> dict[str, Any] | None:
    """Return by how much the loss falls along the gradient and along the lowest eigenvector."""
    bars = []
    for words, place in _places(evidence):
        bars.append({"name": f"gradient, {words}", "value": place.slope_fall})
        bars.append(
            {
                "name": f"lowest direction, {words}",
                "value": place.fall,
                "error": 2 * place.noise,
            }
        )
    if not bars:
        return None
    words, place = list(_places(evidence))[-1]
    return {
        "kind": "falls",
        "name": "falls",
        "title": "What a step from there gains",
        "axis": "fall of the loss on rows that did not choose the step",
        "bars": bars,
        "whole": place.loss,
        "summary": f"{words}, of a loss of {place.loss:.3g}: {place.slope_fall:.3g} along the "
        f"gradient, {place.fall:.3g} along the lowest direction (noise {2 * place.noise:.2g}).",
        "caption": "The best step of nine lengths. A saddle: the lowest direction gains much, the "
        "gradient little. Neither gains: a stationary point. The gradient gains much: the run could "
        "go on, with larger steps or more of them. The line is two standard errors.",
    }
