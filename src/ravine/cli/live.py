"""The live line of a terminal: bar, loss with a sparkline, lr, gradient norm, time left."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import IO, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from ravine.cli.display import describe_run, row_words
from ravine.report.words import number
from ravine.training.events import EpochDone, Event, RunEnded, RunStarted, StepDone

__all__ = ["LiveDisplay", "LiveLine", "clock_time", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*#"
_REMEMBERED = 512


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


def clock_time(seconds: float) -> str:
    """Write a time to come as minutes and seconds.

    >>> clock_time(75), clock_time(4000)
    ('1:15', '1:06:40')
    """
    whole = max(0, math.ceil(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class LiveLine:
    """The state of a run as Rich draws it, fitted to the width of the terminal.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epochs = self._steps = 1
        self._step = self._epoch = 0
        self._loss = self._lr = math.nan
        self._norm: float | None = None
        self._losses: list[float] = []
        self._started = clock()
        self._first: tuple[float, int] | None = None
        self._spent: float | None = None
        self._row: Text | None = None

    def update(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, RunStarted):
            self._epochs, self._steps = event.epochs, max(event.steps, 1)
        elif isinstance(event, StepDone):
            self._step, self._epoch = event.step, event.epoch
            self._loss, self._lr, self._norm = event.loss, event.lr, event.gradient_norm
            self._losses.append(event.loss)
            if len(self._losses) > _REMEMBERED:
                pairs = zip(self._losses[::2], self._losses[1::2], strict=False)
                self._losses = [(a + b) / 2 for a, b in pairs] + self._losses[_REMEMBERED:]
            self._first = self._first or (self._clock(), event.step)
        elif isinstance(event, EpochDone):
            self._epoch = int(event.row.get("epoch", self._epoch))
            self._step = int(event.row.get("step", self._step))
            words = "  ".join(w for w in row_words(event.row) if w.startswith(("train", "valid")))
            self._row = Text(f"epoch {self._epoch}: {words}", style="dim")
        else:
            self._spent = self._clock() - self._started

    def _time(self) -> str:
        if self._spent is not None:
            return clock_time(self._spent) + " spent"
        now = self._clock()
        # The first step waits for kernels to be compiled: time is counted from its end.
        since, at = self._first or (now, self._step)
        if self._step <= at or now <= since:
            return "-:-- left"
        return clock_time((now - since) / (self._step - at) * (self._steps - self._step)) + " left"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the line; what does not fit is left out, the gradient norm first."""
        ascii_only = options.ascii_only
        head = f"epoch {max(self._epoch, 1)}/{self._epochs} "
        loss = f" loss {number(self._loss)} "
        tail = [f" {self._time()}", f" lr {number(self._lr)} "]
        if self._norm is not None:
            tail.append(f" gradient {self._norm:.3g} ")
        room = options.max_width - len(head) - len(loss)
        while tail and room - sum(map(len, tail)) < 12:
            tail.pop()
        room = max(room - sum(map(len, tail)), 0)
        spark = min(room // 2, 24)
        bar = min(room - spark, 30)
        done = min(bar, bar * self._step // self._steps)
        full, empty = ("#", "-") if ascii_only else ("━", "─")
        line = Text(no_wrap=True, overflow="ellipsis", end="")
        line.append(head, "bold")
        line.append(full * done, "green").append(empty * (bar - done), "dim")
        line.append(loss, "bold" if math.isfinite(self._loss) else "bold red")
        line.append(sparkline(self._losses, spark, ascii_only=ascii_only), "cyan")
        styles = ("", "magenta", "yellow")
        for i in (1, 2, 0):  # the time left is the last to go and stands at the end
            if i < len(tail):
                line.append(tail[i], styles[i])
        yield line
        if self._row is not None:
            yield Text("\n", end="")
            self._row.no_wrap, self._row.overflow, self._row.end = True, "ellipsis", ""
            yield self._row


class LiveDisplay:
    """Keeps the live line of a run up to date on a terminal.

    Args:
        stream: the terminal.
        console: Rich's view of it; made from the stream when None.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        stream: IO[str],
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(file=stream, highlight=False)
        self._line = LiveLine(clock)
        # Drawn when an event comes, not by a thread that would take time from the training.
        self._live = Live(self._line, console=self._console, auto_refresh=False)

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
        self._line.update(event)
        if self._live.is_started:
            self._live.refresh()
        if isinstance(event, RunEnded):
            self._live.stop()
