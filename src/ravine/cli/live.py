"""The live lines of a terminal: where the run stands, its loss and its speed, its last epoch."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import IO, Self, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from ravine.cli.display import clock_time, describe_run, row_words
from ravine.cli.outlet import Outlet
from ravine.report.words import number
from ravine.training.events import (
    EpochDone,
    Event,
    Found,
    Recovered,
    RunEnded,
    RunStarted,
    StepDone,
)
from ravine.training.pace import Pace

__all__ = ["LiveDisplay", "LiveLines", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*#"
_REMEMBERED = 512
_BAR = 8
_FULL, _EMPTY = ("━", "#"), ("─", "-")


def sparkline(values: Iterable[float], width: int, *, ascii_only: bool = False) -> str:
    """Draw values as a row of blocks, each the mean of its stretch; ``!`` is not finite.

    Positive values that span more than a factor of ten are drawn on a logarithmic scale.

    >>> sparkline([8, 4, 2, 1], 4)
    '█▄▂▁'
    """
    blocks = _ASCII if ascii_only else _BLOCKS
    points = list(values)
    if width < 1 or not points:
        return ""
    width = min(width, len(points))
    cuts = [i * len(points) // width for i in range(width + 1)]
    means = [sum(points[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return "!" * width
    if min(finite) > 0 and max(finite) > 10 * min(finite):
        means = [math.log(mean) if math.isfinite(mean) else mean for mean in means]
        finite = [math.log(mean) for mean in finite]
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    top = len(blocks) - 1
    return "".join(
        blocks[round((mean - low) / span * top)] if math.isfinite(mean) else "!" for mean in means
    )


class LiveLines:
    """The state of a run as Rich draws it, fitted to the width of the terminal.

    A line with epoch, bar, curve of the loss, step and time; one with what belongs to a step; one
    with the last epoch's row. What does not fit is left out, the least important first.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epochs = 1
        self._steps = self._epoch = 0
        self._done = StepDone(0, 1, math.nan, math.nan, None)
        self._losses: list[float] = []
        self._started = self._now = clock()
        self._spent: float | None = None
        self._row: Text | None = None
        self._widths: dict[str, int] = {}

    def update(self, event: Event) -> None:
        """Take in an event."""
        if not isinstance(event, RunEnded):
            self._now = self._clock()
        if isinstance(event, RunStarted):
            self._epochs, self._steps, self._epoch = event.epochs, event.steps, event.epoch
            self._done = StepDone(event.step, event.epoch + 1, math.nan, math.nan, None)
            self._started = self._now
        elif isinstance(event, StepDone):
            self._done, self._epoch = event, event.epoch
            self._losses.append(event.loss)
            if len(self._losses) > _REMEMBERED:
                pairs = zip(self._losses[::2], self._losses[1::2], strict=False)
                self._losses = [(a + b) / 2 for a, b in pairs] + self._losses[_REMEMBERED:]
        elif isinstance(event, EpochDone):
            self._epoch = int(event.row.get("epoch", self._epoch))
            step = int(event.row.get("step", self._done.step))
            self._done = dataclasses.replace(self._done, step=step)
            words = "  ".join(w for w in row_words(event.row) if w.startswith(("train", "valid")))
            self._row = Text(f"epoch {self._epoch}: {words}", "dim")
        elif isinstance(event, Recovered):
            self._done = dataclasses.replace(self._done, step=event.step, epoch=event.epoch + 1)
            self._epoch = event.epoch
        elif isinstance(event, RunEnded):
            self._spent = self._now - self._started

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the lines."""
        ascii_only, width = options.ascii_only, options.max_width
        lines = [self._first(width, ascii_only)]
        if self._losses:
            lines.append(self._second(width))
        if self._row is not None:
            lines.append(self._row)
        for i, line in enumerate(lines):
            line.no_wrap, line.overflow, line.end = True, "ellipsis", ""
            if i:
                yield Text("\n", end="")
            yield line

    def _first(self, width: int, ascii_only: bool) -> Text:
        head = f"epoch {max(self._epoch, 1)}/{self._epochs}"
        total = f"/{self._steps:,}" if self._steps else ""
        cells = self._cells(
            [("time", self._time(), ""), ("step", f"step {self._done.step:,}{total}", "dim")],
            width - len(head) - _BAR - 2,
        )
        tail = Text("  ").join(reversed(cells))
        room = min(width - len(head) - len(tail) - 2, 60)
        curve = min(room // 2 - 1, 24)
        spark = sparkline(self._losses, curve, ascii_only=ascii_only).ljust(curve)
        room -= curve + 1
        if self._steps:
            done = max(min(room, room * self._done.step // self._steps), 0)
        else:  # the epochs are all that is known
            done = max(min(room, room * (self._done.epoch - 1) // max(self._epochs, 1)), 0)
        line = Text(head, "bold")
        line.append(" ").append(_FULL[ascii_only] * done, "green")
        line.append(_EMPTY[ascii_only] * (room - done), "dim").append(" ")
        line.append(spark, "cyan").append(" ")
        return line.append_text(tail)

    def _second(self, width: int) -> Text:
        done = self._done
        bold = "bold" if math.isfinite(done.loss) else "bold red"
        found = [("loss", f"loss {number(done.loss)}", bold)]
        if done.smoothed_loss is not None:
            found.append(("smoothed", f"smoothed {number(done.smoothed_loss)}", ""))
        found.append(("lr", f"lr {number(done.lr)}", "magenta"))
        if done.samples_per_second is not None:
            found.append(("speed", f"{number(round(done.samples_per_second))} samples/s", ""))
        if done.gradient_norm is not None:
            found.append(("gradient", f"gradient {done.gradient_norm:.3g}", "yellow"))
        return Text("  ").join(self._cells(found, width))

    def _cells(self, found: list[tuple[str, str, str]], width: int) -> list[Text]:
        """Take cells while they fit, the first whatever comes; none ever gets narrower again."""
        cells: list[Text] = []
        for name, text, style in found:
            self._widths[name] = max(self._widths.get(name, 0), len(text))
            width -= self._widths[name] + (2 if cells else 0)
            if cells and width < 0:
                break
            cells.append(Text(text.ljust(self._widths[name]), style))
        return cells

    def _time(self) -> str:
        if self._spent is not None:
            return clock_time(self._spent) + " spent"
        left = self._done.seconds_left
        return clock_time(math.nan if left is None else left) + " left"


class LiveDisplay:
    """Keeps the live lines of a run up to date on a terminal.

    Args:
        outlet: the terminal. While it takes nothing (Ctrl-S) nothing is drawn.
        console: Rich's view of it; made from the outlet when None.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outlet = outlet
        self._console = console or Console(file=cast("IO[str]", outlet), highlight=False)
        self._lines = LiveLines(clock)
        self._pace = Pace(0.1, clock=clock)
        # Drawn when an event comes, not by a thread that would take time from the training.
        self._live = Live(self._lines, console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, RunStarted):
            for text in describe_run(event):
                self._console.print(Text(text), soft_wrap=True)
            self._live.start()
        elif isinstance(event, Recovered):
            self._console.print(Text(f"  note: {event.text}"), soft_wrap=True)
        elif isinstance(event, Found):
            text = f"  {event.finding.severity}: {event.text}"
            self._console.print(Text(text, "yellow"), soft_wrap=True)
        self._lines.update(event)
        if isinstance(event, RunEnded):
            self._live.refresh()
            self._live.stop()
        elif self._live.is_started and self._pace.due() and self._outlet.ready():
            self._live.refresh()
            self._pace.done()
