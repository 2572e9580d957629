"""Processes that are killed at random moments, and resumed, leave what the unbroken one leaves."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import killing
import pytest

KILLS = 4
"""A task; `benchmarks/kills.py` makes a hundred."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("task", ["digits", "text"])
def test_a_killed_run_goes_on_to_the_same_bits(task: str, tmp_path: Path) -> None:
    every = 3
    calls = killing.unbroken(task, every, tmp_path / "whole")
    whole = killing.left(tmp_path / "whole")
    assert whole["status"] == "completed"
    killed = 0
    for k, moment in enumerate(itertools.islice(killing.moments(calls, seed=11), KILLS)):
        killed += killing.broken(task, every, moment, tmp_path / str(k))
        assert killing.left(tmp_path / str(k)) == whole, moment
    assert killed >= KILLS - 1  # a moment may come after the end
