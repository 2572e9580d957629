"""The live line of a terminal, and who gets it."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from ravine.cli.display import PlainDisplay, choose_display
from ravine.cli.live import LiveDisplay, LiveLine, sparkline
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
def test_only_a_terminal_gets_the_live_line(
    stream: io.StringIO, environment: dict[str, str], live: bool
) -> None:
    assert isinstance(choose_display(stream, environment), LiveDisplay if live else PlainDisplay)


def line_at(width: int, *, seconds: float = 10.0) -> str:
    now = [0.0]
    line = LiveLine(clock=lambda: now[0])
    line.update(RunStarted("digits", "adam()", "mse()", 9, 20, 401, 64, "fake"))
    for step in range(1, 102, 10):
        now[0] = seconds * (step - 1) / 100
        line.update(StepDone(step, 5, 2.0 / step, 1e-3, 1.25))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    with console.capture() as captured:
        console.print(line)
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).rstrip("\n")


def test_the_live_line_says_all_when_there_is_room() -> None:
    text = line_at(120)
    assert text.startswith("epoch 5/20 ━")
    for part in ("loss 0.0198", "lr 0.001", "gradient 1.25", "0:30 left", "█"):
        assert part in text


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 79, 80, 100, 200])
def test_the_live_line_fits_every_width(width: int) -> None:
    text = line_at(width)
    assert "\n" not in text
    assert len(text) <= width


def test_narrow_terminals_lose_the_gradient_norm_first_and_the_loss_last() -> None:
    assert "gradient" not in line_at(60)
    assert "left" in line_at(60)
    assert "loss 0.0198" in line_at(40)


def test_the_live_display_shows_the_epoch_and_gives_the_terminal_back() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=90, color_system=None)
    with LiveDisplay(stream, console=console) as display:
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
    with choose_display(stream, {"TERM": "xterm-256color"}) as display:
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
