"""Fair timing on a shared machine: cases take turns in one process, and medians are compared."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ravine.engine.pages import empty_like

Call = Callable[[], object]


def interleaved(
    cases: Mapping[str, Call], *, seconds: float = 3.0, rounds: int = 25, device: str = "cpu"
) -> dict[str, float]:
    """Return the median time of one call of each case, in seconds.

    The cases take turns, so that a machine whose speed drifts is as slow for one as for the other.
    In each round a case is called often enough to fill its share of the time; the round's figure
    is the median of its calls (on a GPU the time between two events on the device, divided by
    the calls between them), and the result the median of the rounds.

    Args:
        cases: what to call, by name; each is called three times before the clock runs.
        seconds: roughly how long it may take in all.
        rounds: how many turns each case gets.
        device: "cpu" or "cuda".
    """
    timed = _on_device if device.startswith("cuda") else _on_host
    counts = {}
    for name, run in cases.items():
        for _ in range(3):
            run()
        once = max(timed(run, 1), 1e-7)
        counts[name] = max(1, min(2000, int(seconds / rounds / len(cases) / once)))
    figures: dict[str, list[float]] = {name: [] for name in cases}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in cases.items():
                figures[name].append(timed(run, counts[name]))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in figures.items()}


def _on_host(run: Call, count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _on_device(run: Call, count: int) -> float:
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / count


STREAM_ELEMENTS = 42_000_000
"""Of 16 million, a tenth was still in the cache at the next pass: 51 GB/s where 42 or 100 million give 47."""
STREAM_BYTES = 3 * 4 * STREAM_ELEMENTS


def stream(device: str = "cpu") -> Call:
    """Return a pass that reads two arrays and writes one of them anew, `STREAM_BYTES` in all.

    What memory can give is measured by it, in turns with what is compared: on a machine that others use
    too it goes up and down by a third within a minute. In place, because a third array that is only written
    is read first by the processor (46 GB/s here, not 34), and in huge pages.
    """
    like = torch.empty(STREAM_ELEMENTS, device=device)
    a, b = (empty_like(like, torch.float32).zero_() for _ in range(2))
    return lambda: a.add_(b)
