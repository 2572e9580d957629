"""A watch around a run: looks at some of its steps, changes none, and says what it finds."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ravine.errors import NonFiniteError, RavineError, RunDirectoryError
from ravine.training.events import Found
from ravine.training.lines import add_line, keep_lines, read_lines
from ravine.training.loop import Loop
from ravine.watch import Finding, FindingWarning, Watch, text_of

__all__ = ["FINDINGS", "Watching"]

FINDINGS = "findings.jsonl"
"""The file of a run directory with what the watch found; it is there once something was found."""


class Watching:
    """Puts a `ravine.watch` around a loop.

    Args:
        tell: called with an event for each finding.
        run_dir: where findings are kept, or None.
        on: whether to watch at all.
    """

    def __init__(
        self, tell: Callable[[Found], object], run_dir: Path | None, *, on: bool = True
    ) -> None:
        self._tell, self._on = tell, on
        self._path = None if run_dir is None else run_dir / FINDINGS
        self._loop: Loop | None = None
        self._watch: Watch | None = None
        self._told = 0

    def begin(self, loop: Loop, findings: list[Finding]) -> None:
        """Watch a loop from here on.

        Args:
            loop: with its state loaded.
            findings: the list of the record, which grows from here on.
        """
        known = self._kept(loop.step)
        findings.extend(known)
        if not self._on:
            return
        self._loop, self._findings = loop, findings
        self._watch = Watch(loop.model, loop.optimizer, warn=False)
        self._told = len(known)
        self._watch.begin(loop.step, known)
        self._then = loop.on_step
        loop.current_step.watch, loop.on_step = self._watch, self._after_step
        self._say()

    @contextlib.contextmanager
    def paused(self, error: NonFiniteError) -> Iterator[None]:
        """Look away while a run finds its way back from an error, or ends with it."""
        watch, loop = self._watch, self._loop
        if watch is None or loop is None:
            yield
            return
        watch.ended(float("nan"))
        self._say()
        loop.current_step.watch = None
        yield
        watch.begin(loop.step)
        loop.current_step.watch = watch

    def _after_step(self, loop: Loop, loss: Tensor, inputs: Tensor, targets: Tensor) -> bool:
        assert self._watch is not None
        self._watch.observe(loss)
        if len(self._watch.findings) > self._told:
            self._say()
        return self._then is not None and self._then(loop, loss, inputs, targets)

    def _say(self) -> None:
        assert self._watch is not None and self._loop is not None
        for finding in self._watch.findings[self._told :]:
            self._told += 1
            self._findings.append(finding)
            if self._path is not None:
                add_line(self._path, {"code": finding.code, **asdict(finding)})
            text = text_of(finding)
            self._tell(Found(self._loop.step, finding, text))
            warnings.warn(FindingWarning(text), stacklevel=2)

    def _kept(self, step: int) -> list[Finding]:
        """Return what was found up to a step; what lies behind it is cut off."""
        if self._path is None:
            return []
        keep_lines(self._path, lambda row: (row.get("steps") or [0])[0] <= step)
        rows = read_lines(self._path) if self._path.exists() else []
        return [_finding(row, self._path) for row in rows]


def _finding(row: dict[str, Any], path: Path) -> Finding:
    try:
        steps = row["steps"]
        return Finding(
            name=row["name"],
            severity=row["severity"],
            confidence=row["confidence"],
            says=str(row["says"]),
            where=str(row["where"]),
            steps=None if steps is None else (int(steps[0]), int(steps[1])),
            evidence=dict(row["evidence"]),
        )
    except (RavineError, LookupError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{path.name} cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            expected="findings as a run writes them",
            do="take the file away",
        ) from error
