"""The files of a run: what was asked for, its history as it grows, its weights, its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ravine.errors import RunDirectoryError
from ravine.report import to_strict_json
from ravine.training.record import Record

CONFIG, HISTORY, RECORD = "config.json", "history.jsonl", "record.json"
WEIGHTS, PAGE = "model.safetensors", "report.html"


class RunDirectory:
    """Writes the files of one run; each is whole or not there.

    Raises:
        RunDirectoryError: the folder cannot be written, or holds another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            taken = [name for name in (CONFIG, HISTORY, RECORD, WEIGHTS) if (path / name).exists()]
        except OSError as error:
            raise _failed("the run directory cannot be made", path, error) from error
        if taken:
            raise RunDirectoryError(
                "the run directory holds another run",
                where=str(path),
                got=", ".join(taken),
                expected="a new or empty folder, so that no result is lost",
                do="name another one, or move this one away",
            )

    def start(self, config: dict[str, Any], environment: dict[str, Any]) -> None:
        """Write what was asked for, and on what it runs."""
        self._write(CONFIG, _pretty({"config": config, "environment": environment}))
        self._write(HISTORY, "")

    def add_row(self, row: dict[str, Any]) -> None:
        """Add an epoch to the history."""
        try:
            with (self.path / HISTORY).open("a", encoding="utf-8") as file:
                file.write(to_strict_json(row) + "\n")
        except OSError as error:
            raise _failed("the history cannot be written", self.path / HISTORY, error) from error

    def finish(self, record: Record) -> None:
        """Write the record, the weights and the page."""
        self._write(RECORD, _pretty(record.to_json()))
        self._write_weights(record.model)
        record.report(self.path / PAGE)

    def _write_weights(self, model: nn.Module) -> None:
        from safetensors.torch import save_model

        part = self.path / (WEIGHTS + ".part")
        try:
            save_model(model, str(part))
            part.replace(self.path / WEIGHTS)
        except Exception as error:  # safetensors has errors of its own for a full disk
            part.unlink(missing_ok=True)
            raise _failed("the weights cannot be written", self.path / WEIGHTS, error) from error

    def _write(self, name: str, text: str) -> None:
        part = self.path / (name + ".part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self.path / name)
        except OSError as error:
            raise _failed("a file of the run cannot be written", self.path / name, error) from error


def _pretty(value: Any) -> str:
    return to_strict_json(value, indent=2) + "\n"


def _failed(what: str, path: Path, error: Exception) -> RunDirectoryError:
    return RunDirectoryError(
        what,
        where=str(path),
        got=f"{type(error).__name__}: {error}",
        do="make room or name another folder; what was written before is untouched",
    )
