"""A million steps of a tiny model with a run directory: `python benchmarks/soak.py`.

The memory of the process is read after every hundredth of the run. It is flat if the last tenth
needs no more than the second: what came before is imports, compiled kernels, pools that fill.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

import ravine

ROWS, EPOCHS = 1000, 1000


def main() -> None:
    quick = arguments(__doc__ or "").quick
    epochs = EPOCHS // 50 if quick else EPOCHS
    torch.manual_seed(0)
    inputs = torch.randn(ROWS, 4)
    task = ravine.Task(
        name="tiny",
        model=torch.nn.Linear(4, 1),
        loss="mse",
        train=(inputs, inputs.sum(1, keepdim=True)),
        valid=(inputs[:100], inputs[:100].sum(1, keepdim=True)),
    )
    process = psutil.Process()
    memory: list[float] = []
    start = time.perf_counter()

    def look(row: dict[str, Any], state: Any) -> None:
        if row["epoch"] % max(epochs // 100, 1) == 0:
            memory.append(process.memory_info().rss / 2**20)
            if row["epoch"] % max(epochs // 10, 1) == 0:
                line(f"step {row['step']:,}", f"{memory[-1]:.1f} MB")

    with tempfile.TemporaryDirectory() as root:
        run = Path(root, "run")
        record = ravine.train(
            task, "adam(lr=1e-3)", batch_size=1, epochs=epochs, regularize=(), run_dir=run,
            on_epoch=look, checkpoint_every="10s",
        )  # fmt: skip
        sizes = {path.name: path.stat().st_size for path in run.iterdir() if path.is_file()}
    tenth = max(len(memory) // 10, 1)
    early, late = (statistics.median(part) for part in (memory[tenth : 2 * tenth], memory[-tenth:]))
    result = {
        "steps": record.facts["steps"],
        "seconds": round(time.perf_counter() - start, 1),
        "microseconds_a_step": round(1e6 * record.facts["seconds"] / record.facts["steps"], 1),
        "megabytes": {
            "second tenth": round(early, 2),
            "last tenth": round(late, 2),
            "most": round(max(memory), 2),
        },
        "history_bytes_a_row": round(sizes["history.jsonl"] / epochs, 1),
        "files": sizes,
    }
    line("second tenth, last tenth, MB", f"{early:.2f}", f"{late:.2f}")
    if not quick:
        print(save("soak", result, "python benchmarks/soak.py"))


if __name__ == "__main__":
    main()
