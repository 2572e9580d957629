"""TensorBoard event files of a run, written by a listener."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravine.errors import MissingPackageError
from ravine.report import to_strict_json
from ravine.training.events import EpochDone, Event, Recovered, RunEnded, RunStarted, StepDone
from ravine.training.pace import Sparser

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardListener"]

_FLUSH = 10
"""Seconds after which the writer's thread puts what it has on the disk."""


class TensorBoardListener:
    """Writes the curves of a run for TensorBoard: ``tensorboard --logdir runs``.

    By step, ten times a second at first and then ever less often: ``train/loss``,
    ``train/smoothed_loss``, ``lr``, ``gradient_norm``, ``samples_per_second``. By epoch, at the
    epoch's last step: every loss and metric of the history under its own name, but the mean
    training loss of the epoch, which is ``train/epoch_loss``. At the end the metrics of the test
    data; at the start the configuration, as a text. Numbers are in float32, as TensorBoard keeps
    them, and those that are not finite are written too.

    Where a run goes on, what lies behind the step that it goes on from is marked as void, so that
    curves do not fold back.

    Args:
        folder: for the event files; made with the first number.
        clock: seconds that never run backwards.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._make = _writer_class()
        self._folder = Path(folder)
        self._sparser = Sparser(clock=clock)
        self._started: RunStarted | None = None
        self._writer: SummaryWriter | None = None
        self._step = 0

    @property
    def writer(self) -> SummaryWriter:
        """torch's SummaryWriter, for histograms, images and numbers of your own."""
        if self._writer is None:
            start = self._started
            goes_on = start is not None and start.step > 0
            self._writer = self._make(
                str(self._folder),
                purge_step=start.step + 1 if start is not None and goes_on else None,
                flush_secs=_FLUSH,
            )
            if start is not None and not goes_on:
                self._writer.add_text("config", _as_text(start), 0)
        return self._writer

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, RunStarted):
            self._started, self._step = event, event.step
        elif isinstance(event, StepDone):
            self._step = event.step
            if self._sparser.due():
                self._add(
                    {
                        "train/loss": event.loss,
                        "train/smoothed_loss": event.smoothed_loss,
                        "lr": event.lr,
                        "gradient_norm": event.gradient_norm,
                        "samples_per_second": event.samples_per_second,
                    }
                )
        elif isinstance(event, Recovered):
            if event.step < self._step and self._started is not None:
                if self._writer is not None:
                    self._writer.close()  # a new one says from where on the values hold no longer
                self._writer = None
                self._started, self._step = replace(self._started, step=event.step), event.step
        elif isinstance(event, EpochDone):
            self._step = int(event.row.get("step", self._step))
            named = {name: value for name, value in event.row.items() if "/" in name}
            # A tag has one value a step: that of the last step's own loss may be there already.
            self._add(
                {("train/epoch_loss" if k == "train/loss" else k): v for k, v in named.items()}
            )
        elif isinstance(event, RunEnded) and self._writer is not None:
            metrics = event.record.metrics.items()
            self._add({name: value for name, value in metrics if name.startswith("test/")})
            self._writer.close()

    def _add(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(name, value, self._step)


def _as_text(start: RunStarted) -> str:
    """Return the configuration as TensorBoard shows it: Markdown, where four spaces mean as it is."""
    text = to_strict_json(dict(start.config) or {"task": start.task}, indent=2)
    return "\n".join("    " + line for line in text.splitlines())


def _writer_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            "TensorBoard's event files cannot be written",
            got=str(error),
            expected="the package tensorboard",
            do="pip install tensorboard, or ravine[tensorboard]",
        ) from error
    return SummaryWriter
