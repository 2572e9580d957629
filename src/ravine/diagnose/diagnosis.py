"""The result of a diagnosis."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ravine.watch.finding import Finding


@dataclass
class Diagnosis:
    """What was found, the root cause first.

    Attributes:
        name: the task's name.
        findings: the root cause first; empty where nothing was found.
        ruled_out: what was looked for and not found, as sentences.
        verdict: "healthy", "found" or "unclear": something is wrong and no cause was proved.
        measured: what the program reached, by name.
        seconds: how long it took.
        drawings: charts of the evidence, as plain data.
        interrupted: whether Ctrl-C ended it; then it holds what was found until then.
        notes: in what the replays differ from the run that was handed over, as sentences.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    ruled_out: tuple[str, ...] = ()
    verdict: str = "healthy"
    measured: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    drawings: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain dictionaries, lists, words and numbers."""
        from ravine import __version__

        return {
            "kind": "diagnosis",
            "name": self.name,
            "ravine": __version__,
            "verdict": self.verdict,
            "findings": [{"code": f.code, **asdict(f)} for f in self.findings],
            "ruled_out": list(self.ruled_out),
            "measured": self.measured,
            "seconds": self.seconds,
            "drawings": self.drawings,
            "interrupted": self.interrupted,
            "notes": list(self.notes),
        }

    def report(self, path: str | Path) -> Path:
        """Write the diagnosis as one HTML page that needs no network; return its path."""
        from ravine.report import write_report

        return write_report(self.to_json(), Path(path))

    def __repr__(self) -> str:
        names = ", ".join(f.name for f in self.findings) or "no finding"
        return f"Diagnosis({self.name!r}, {self.verdict}: {names})"
