"""What the benchmarks share: interleaved timing in one process, the stream limit, the JSON."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(
    cases: dict[str, Callable[[], object]], *, seconds: float = 3.0, rounds: int = 7
) -> dict[str, float]:
    """Return the median time of one call of each case, in seconds.

    The cases take turns, so that a machine whose speed drifts is as slow for one as for the other.
    In each round a case is called often enough to fill its share of the time; the round's figure
    is the median of its calls, and the result the median of the rounds.
    """
    counts = {}
    for name, run in cases.items():
        for _ in range(3):
            run()
        start = time.perf_counter()
        run()
        once = max(time.perf_counter() - start, 1e-7)
        counts[name] = max(1, min(2000, int(seconds / rounds / len(cases) / once)))
    figures: dict[str, list[float]] = {name: [] for name in cases}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in cases.items():
                times = []
                for _ in range(counts[name]):
                    start = time.perf_counter()
                    run()
                    times.append(time.perf_counter() - start)
                figures[name].append(statistics.median(times))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in figures.items()}


def stream_limit(elements: int = 16_000_000, seconds: float = 1.0) -> float:
    """Return the bytes a second at which this process can read two arrays and write a third.

    The best of all tries within the time: what else the machine does can only make it slower.
    """
    a, b, c = (torch.rand(elements) for _ in range(3))
    end = time.perf_counter() + seconds
    best = _timed(lambda: torch.add(a, b, out=c))
    while time.perf_counter() < end:
        best = min(best, _timed(lambda: torch.add(a, b, out=c)))
    return 3 * 4 * elements / best


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """Return versions and hardware."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = {}
    for package in ("ravine", "torch", "numba", "numpy", "pytorch_optimizer", "heavyball"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "load": os.getloadavg()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save(name: str, result: dict[str, Any], command: str) -> Path:
    """Write a result as JSON under ``benchmarks/results`` and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"command": command, "machine": machine(), **result}, indent=2)
    path.write_text(text + "\n")
    return path


def arguments(description: str) -> argparse.Namespace:
    """Read the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, nothing saved")
    return parser.parse_args()


def line(*cells: object) -> None:
    """Print a row of a table."""
    print("  ".join(f"{cell:>14}" if k else f"{cell:<34}" for k, cell in enumerate(cells)))
