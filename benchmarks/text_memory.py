"""Memory of a run on a text of 50 million characters, which is streamed from disk.

A child process makes the task of the file, reads one whole epoch of its batches (of 32 rows, of 512
with --quick), then trains for 200 steps (20 with --quick) in a run directory, a checkpoint every 10,
and evaluates on as many batches of the validation part. Its largest resident memory is what the
operating system counts (VmHWM), mapped files included. Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

CHARACTERS = 50_000_000

CHILD = """
import json, sys
import torch, ravine
from pathlib import Path
from ravine.tasks import load_task
from ravine.losses import cross_entropy
from ravine.tasks.metrics import METRICS
from ravine.training.batches import evaluation_batches, training_batches
from ravine.training.evaluation import evaluate
from ravine.training.events import StepDone

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

path, steps, rows_read = sys.argv[1], int(sys.argv[2]), int(sys.argv[4])
imported = peak()
task = load_task(path)
made = peak()
batches = training_batches(task.train, rows_read, torch.device("cpu"), 0)
rows = sum(len(targets) for _, targets in batches.epoch(1))
assert rows == len(task.train)
streamed = peak()

def stop(event):
    if isinstance(event, StepDone) and event.step >= steps:
        raise KeyboardInterrupt

try:
    ravine.train(task, listeners=[stop], device="cpu", run_dir=sys.argv[3],
                 checkpoint_every=10)
except KeyboardInterrupt as error:
    model = error.record.model
trained = peak()
valid = evaluation_batches(task.valid.select(range(64 * steps)), torch.device("cpu"), 32)
evaluate(model, valid, cross_entropy, {"accuracy": METRICS["accuracy"]}, part="valid")
print(json.dumps({"characters": task.facts["characters"], "rows": rows, "imported_mb": imported,
                  "task_made_mb": made, "streamed_mb": streamed, "trained_mb": trained,
                  "evaluated_mb": peak()}))
"""


def write_text(path: Path, characters: int) -> None:
    """Write the documentation of Python over and over, up to a number of characters."""
    from ravine.tasks.text import documentation_text

    text = documentation_text()
    left = characters
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            left -= file.write(text[:left])


def peaks(characters: int, steps: int, rows_read: int) -> dict[str, float]:
    """Return the peaks of the child process after each of its stages, in MB (2**20 bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.txt"
        write_text(path, characters)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CHILD, path, str(steps), Path(folder) / "run", str(rows_read)],
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found | {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    quick = measure.arguments(__doc__ or "").quick
    found = peaks(CHARACTERS, *((20, 512) if quick else (200, 32)))
    print(json.dumps(found, indent=1))
    if not quick:
        measure.save("text_memory", found, "python benchmarks/text_memory.py")
