"""What checkpoints cost: `python benchmarks/checkpoints.py`.

Three figures. The share of a run's time that checkpoints take at the default interval, computed
from what one costs (its copy in the run, and its writing, whose thread may take a core) and from
the interval that follows. The same run with checkpoints and without, in turns, on digits (a short
run: the checkpoint of the end is all of them) and on a Transformer of 10 million weights with Adam.
The time of what the loop does at every step and epoch so that it can be resumed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

import ravine
from ravine.tasks import Task, load_task
from ravine.tasks.transformer import CausalTransformer
from ravine.training.keeper import FIRST, SHARE, Keeper
from ravine.training.loop import Loop
from ravine.training.random_state import random_state

ROUNDS = 7


def large(windows: int) -> Task:
    """The text task with a model of 10 million weights, and some of its windows."""
    task = load_task("text", 0)
    inputs, targets = task.train
    torch.manual_seed(0)
    model = CausalTransformer(
        int(inputs.max()) + 1, context=inputs.shape[1], width=384, heads=6, layers=6
    )
    return Task(
        name="large text", model=model, loss="cross_entropy",
        train=(inputs[:windows], targets[:windows]),
    )  # fmt: skip


def watched(run: Callable[[], Any]) -> dict[str, float]:
    """Run; return its seconds, and those of its checkpoints: copies, and writing."""
    copies: list[float] = []
    writes: list[float] = []
    saved = Keeper.save

    def timed(self: Keeper) -> None:
        start = time.perf_counter()
        saved(self)
        copies.append(time.perf_counter() - start)
        self.store.wait()  # here, so that the writing's own time is known
        writes.append(self.store.seconds)

    Keeper.save = timed  # type: ignore[method-assign]
    start = time.perf_counter()
    try:
        run()
    finally:
        Keeper.save = saved  # type: ignore[method-assign]
    return {
        "seconds": time.perf_counter() - start,
        "checkpoints": len(copies),
        "copy": statistics.median(copies) if copies else 0.0,
        "write": statistics.median(writes) if writes else 0.0,
    }


def plain(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def case(name: str, task: Any, options: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Measure one task."""

    def run(folder: Path | None, **more: Any) -> None:
        ravine.train(task, **options, **more, run_dir=folder)

    without: list[float] = []
    default: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        at = 0
        one = watched(lambda: run(Path(root, "warm"), checkpoint_every=3))
        for _ in range(rounds):  # in turns, so that what else the machine does falls on both
            for every, times in ((None, without), ("auto", default)):
                at += 1
                folder = Path(root, str(at))
                times.append(plain(lambda f=folder, e=every: run(f, checkpoint_every=e)))
    cost = one["copy"] + one["write"]
    between = max(FIRST, SHARE * cost)
    row = {
        "task": name,
        "copy_ms": round(one["copy"] * 1e3, 3),
        "write_ms": round(one["write"] * 1e3, 3),
        "seconds_between": round(between, 2),
        "share_percent": round(100 * cost / between, 3),
        "end_only_s": round(statistics.median(without), 4),
        "default_s": round(statistics.median(default), 4),
    }
    line(name, *(row[key] for key in list(row)[1:]))
    return row


def per_step(rounds: int) -> dict[str, float]:
    """Return microseconds of what is done for resuming, per step and per epoch of digits."""
    task = load_task("digits", 0)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as root:
        seen: list[Loop] = []

        def look(state: Any) -> None:
            if not seen:
                seen.append(state._loop)

        def keep(row: Any, state: Any) -> None:
            loop = seen[0]
            found["after_step"] = _microseconds(loop.after_step, rounds)  # type: ignore[misc]

        ravine.train(
            task, "adam(lr=1e-3)", epochs=1, regularize=(), run_dir=Path(root, "run"),
            on_step=look, on_epoch=keep,
        )  # fmt: skip
    found["random_state"] = _microseconds(random_state, rounds)
    return {name: round(value, 3) for name, value in found.items()}


def _microseconds(act: Callable[[], Any], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(200):
            act()
        best = min(best, (time.perf_counter() - start) / 200)
    return best * 1e6


def main() -> None:
    quick = arguments(__doc__ or "").quick
    rounds = 2 if quick else ROUNDS
    line("", "copy ms", "write ms", "s between", "share %", "end only s", "default s")
    digits = {"optimizer": "adam(lr=1e-3)", "epochs": 20, "regularize": ()}
    text = {"optimizer": "adam(lr=1e-3)", "epochs": 1, "batch_size": 8, "regularize": ()}
    rows = [
        case("digits", load_task("digits", 0), digits, rounds),
        case("text, 10 M weights", large(24 if quick else 96), text, 1 if quick else 3),
    ]
    steps = per_step(5 if quick else 20)
    for name, value in steps.items():
        line(f"{name}, us", value)
    if not quick:
        result = {"rows": rows, "microseconds": steps}
        print(save("checkpoints", result, "python benchmarks/checkpoints.py"))


if __name__ == "__main__":
    main()
