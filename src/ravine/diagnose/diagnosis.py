"""The result of a diagnosis."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ravine.diagnose.treated import Treated
from ravine.diagnose.treated_file import text_of, write
from ravine.errors import ArgumentError
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
        treated: the treated program: what a configuration says of it and what has to be made by hand;
            None where no remedy of a root finding helped.
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
    treated: Treated | None = None

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
            "treated": None if self.treated is None else self.treated.to_json(),
        }

    def report(self, path: str | Path) -> Path:
        """Write the diagnosis as one HTML page that needs no network; return its path."""
        from ravine.report import write_report

        return write_report(self.to_json(), Path(path))

    def apply(self, path: str | Path) -> Path:
        """Write the treated configuration as TOML for ``ravine train TASK --config FILE``.

        It has the best helping remedies of the root findings, together where they are of different
        parts of the program, with what they brought. What no configuration can say (another layer,
        standardised inputs) is a comment that says what to change and where. Nothing else is
        written, and nothing of yours is changed.

        Args:
            path: a new file. One that holds the same already is left as it is.

        Returns:
            The path.

        Raises:
            ArgumentError: nothing was found to help, or the file holds something else.
            RunDirectoryError: the file cannot be written.
        """
        from ravine import __version__

        if self.treated is None:
            raise ArgumentError(
                "there is nothing to apply",
                where=f"the diagnosis of {self.name!r}",
                got=f"{len(self.findings)} findings, and no remedy of a root finding that helped",
            )
        return write(text_of(self.treated, __version__), Path(path))

    def __repr__(self) -> str:
        names = ", ".join(f.name for f in self.findings) or "no finding"
        return f"Diagnosis({self.name!r}, {self.verdict}: {names})"
