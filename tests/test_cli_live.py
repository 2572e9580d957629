"""The live line of a terminal, and who gets it."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest
from rich.console import Console

from ravine.cli.display import choose_display
from ravine.cli.live import LiveDisplay, LiveLines, sparkline
from ravine.cli.outlet import Outlet
from ravine.cli.plain import PlainDisplay
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "live"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
        (Terminal(), {"TERM": "xterm", "CI": "false"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_only_a_terminal_gets_the_live_lines(
    stream: Any, environment: dict[str, str], live: bool
) -> None:
    chosen = choose_display(Outlet(stream), environment)
    assert isinstance(chosen, LiveDisplay if live else PlainDisplay)


def drawn(lines: LiveLines, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    with console.capture() as captured:
        console.print(lines)
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).rstrip("\n").split("\n")


def lines_at(width: int, *, steps: int = 401, left: float | None = 30.0) -> list[str]:
    lines = LiveLines()
    lines.update(RunStarted("digits", "adam()", "mse()", 9, 20, steps, 64, "fake"))
    for step in range(1, 102, 10):
        lines.update(StepDone(step, 5, 2.0 / step, 1e-3, 1.25, 0.02111, 12_345.6, left, 64 * step))
    lines.update(EpochDone({"epoch": 5, "step": 101, "valid/loss": 0.25}))
    return drawn(lines, width)


def test_the_live_lines_say_all_when_there_is_room() -> None:
    first, second, third = lines_at(120)
    assert first.startswith("epoch 5/20 ━")
    for part in ("█", "step 101/401", "0:30 left"):
        assert part in first
    for part in ("loss 0.0198", "smoothed 0.02111", "lr 0.001", "12,346 samples/s"):
        assert part in second
    assert "gradient 1.25" in second
    assert third == "epoch 5: valid loss 0.25"


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 79, 80, 100, 200])
def test_the_live_lines_fit_every_width(width: int) -> None:
    lines = lines_at(width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width


def test_everything_stands_at_80_columns() -> None:
    first, second, _ = lines_at(80)
    assert "step 101/401" in first
    assert "gradient 1.25" in second


def test_narrow_terminals_lose_the_least_important_first() -> None:
    first, second, _ = lines_at(60)
    assert ("step" in first, "gradient" in second, "samples/s" in second) == (True, False, True)
    first, second, _ = lines_at(40)
    assert ("step" in first, "left" in first) == (False, True)
    assert ("loss 0.0198" in second, "smoothed" in second, "samples/s" in second) == (
        True, True, False,
    )  # fmt: skip
    assert lines_at(20)[1].startswith("loss 0.0198")


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, "-:-- left"),
        (0.2, "0:01 left"),
        (86_399, "23:59:59 left"),
        (86_400, "1d 0:00:00 left"),
        (1e8, "1,157d 9:46:40 left"),
        (math.inf, "-:-- left"),
        (math.nan, "-:-- left"),
    ],
)
def test_the_time_left(left: float | None, words: str) -> None:
    assert words in lines_at(80, left=left)[0]


def test_an_unknown_number_of_steps_shows_the_epochs_done() -> None:
    first = lines_at(80, steps=0, left=None)[0]
    assert "step 101 " in first
    bar = [first.count("━"), first.count("─")]
    assert bar[0] / sum(bar) == pytest.approx(4 / 20, abs=0.05)


def test_a_run_that_goes_on_begins_where_it_was() -> None:
    lines = LiveLines()
    lines.update(RunStarted("t", "adam()", "mse()", 9, 20, 400, 64, "fake", step=200, epoch=10))
    (first,) = drawn(lines, 80)
    assert first.startswith("epoch 10/20 ━")
    assert "step 200/400" in first
    bar = [first.count("━"), first.count("─")]
    assert bar[0] / sum(bar) == pytest.approx(0.5, abs=0.05)


def test_columns_stay_where_they_are() -> None:
    lines = LiveLines()
    lines.update(RunStarted("t", "adam()", "mse()", 9, 20, 400, 64, "fake"))
    places = []
    for loss in (0.12345, 0.5, math.nan, 0.25):
        lines.update(StepDone(1, 1, loss, 1e-3, 1.0, 0.5, 10.0, 5.0))
        first, second = drawn(lines, 80)
        places.append((first.index("step"), second.index("smoothed"), second.index("gradient")))
    assert len(set(places)) == 1


def test_a_hundred_thousand_epochs_are_neither_kept_nor_drawn_one_by_one() -> None:
    now = [0.0]
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    with LiveDisplay(Outlet(stream), console=console, clock=lambda: now[0]) as display:
        display(RunStarted("t", "adam()", "mse()", 9, 100_000, 100_000, 64, "fake"))
        for epoch in range(1, 100_001):
            now[0] += 1e-4
            display(StepDone(epoch, epoch, 1.0, 1e-3, None))
            display(EpochDone({"epoch": epoch, "step": epoch, "train/loss": 1.0}))
    assert stream.getvalue().count("━") < 110 * 60  # ten seconds of frames
    assert "epoch 100000/100000" in stream.getvalue()


def test_the_live_display_shows_the_epoch_and_gives_the_terminal_back() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=90, color_system=None)
    with LiveDisplay(Outlet(stream), console=console) as display:
        display(RunStarted("[b]digits", "adam()", "mse()", 9, 2, 2, 64, "fake", ("mind [this]",)))
        display(StepDone(1, 1, math.nan, 1e-3, None))
        display(EpochDone({"epoch": 1, "step": 1, "valid/accuracy": 0.5}))
        display(RunEnded(None))
    text = stream.getvalue()
    assert "[b]digits: 9 weights" in text
    assert "note: mind [this]" in text
    assert "loss NaN" in text
    assert "epoch 1: valid accuracy 50.00 %" in text
    assert "\x1b[?25h" in text  # the cursor is visible again


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with choose_display(Outlet(stream), {"TERM": "xterm-256color"}) as display:
        display(RunStarted("digits", "adam()", "mse()", 9, 2, 4, 64, "fake"))
        display(StepDone(1, 1, 1.0, 1e-3, 1.0))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", stream.getvalue())
    assert "loss 1" in stream.getvalue()


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 5, ""),
        ([1.0], 5, "▁"),
        ([1.0, 1.0], 2, "▁▁"),
        ([1.0, math.nan, 2.0], 3, "▁!█"),
        ([math.inf], 3, "!"),
        ([1000.0, 100.0, 10.0, 1.0], 4, "█▆▃▁"),
        ([4.0, 4.0, 1.0, 1.0], 2, "█▁"),
    ],
)
def test_sparkline(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_sparkline_in_ascii() -> None:
    assert sparkline([1, 2], 2, ascii_only=True) == "_#"
