"""What the benchmarks share: their arguments, the lines they print, the JSON they keep."""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ravine.training.environment import environment

RESULTS = Path(__file__).parent / "results"


def save(name: str, result: dict[str, Any], command: str) -> Path:
    """Write a result as JSON under ``benchmarks/results`` and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = environment() | {
        "load": os.getloadavg()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps({"command": command, "environment": facts, **result}, indent=2)
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
