"""What a run leaves: its numbers, its history, its model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ravine.report import write_report
from ravine.training.lines import read_steps
from ravine.watch import Finding

if TYPE_CHECKING:
    import pandas


class History(list[dict[str, Any]]):
    """A row for every epoch, as dictionaries."""

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas frame, with the epoch as its index."""
        import pandas

        frame = pandas.DataFrame(list(self))
        return frame.set_index("epoch") if len(self) else frame

    def column(self, name: str) -> list[Any]:
        """Return one quantity over the epochs; None where a row does not have it."""
        return [row.get(name) for row in self]


@dataclass
class Record:
    """The result of `ravine.train`.

    Attributes:
        name: the task's name.
        status: "completed", "stopped early", "diverged", "interrupted" or "failed" (another error).
        message: why the run ended as it did, where there is something to say.
        metrics: the last values by name: "train/loss", "valid/loss", "valid/accuracy", "test/...".
        history: a row for every epoch, see `History.to_frame`.
        model: the trained model (a copy; the task's own is as it was), in evaluation mode.
        config: what was asked for, resolved; the choices as expressions.
        environment: versions and hardware.
        facts: sizes, speed, and how the weights were stepped.
        findings: what the watch found, in order, see `ravine.watch.Finding`.
        run_dir: where the run was written, or None.
    """

    name: str
    model: nn.Module
    config: dict[str, Any]
    environment: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: History = field(default_factory=History)
    status: str = "completed"
    message: str = ""
    findings: list[Finding] = field(default_factory=list)
    run_dir: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain dictionaries, lists, words and numbers."""
        from ravine import __version__

        return {
            "kind": "train",
            "name": self.name,
            "ravine": __version__,
            "status": self.status,
            "message": self.message,
            "config": self.config,
            "environment": self.environment,
            "facts": self.facts,
            "metrics": self.metrics,
            "findings": [{"code": f.code, **asdict(f)} for f in self.findings],
            "history": list(self.history),
        }

    def report(self, path: str | Path) -> Path:
        """Write the record as one HTML page that needs no network; return its path.

        The steps of a run with a directory are drawn as well where its epochs are few.
        """
        steps = [] if self.run_dir is None else read_steps(self.run_dir)
        return write_report(self.to_json() | {"steps": steps}, Path(path))

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={_short(value)}" for name, value in self.metrics.items())
        return f"Record({self.name!r}, {self.status}: {numbers})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
