"""What watching costs: steps of the digits MLP and of the text Transformer, watched and not, in turns.

python benchmarks/watch.py [--save benchmarks/results/watch.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import ravine
from ravine.tasks import load_task
from ravine.training.batches import training_batches
from ravine.training.catalog import choose_loss
from ravine.training.environment import environment
from ravine.training.threads import threads_for

STEPS, ROUNDS = 32, 9


def measure(name: str, rounds: int) -> dict[str, Any]:
    task = load_task(name, 0)
    size = task.batch_size or 64
    loss, _ = choose_loss(task.loss, {})
    model = task.model
    optimizer = ravine.optim.AdamW(model.parameters(), lr=1e-4)
    batches = list(training_batches(task.train, size, torch.device("cpu"), 0).epoch(1))
    model.train()

    def steps() -> float:
        start = time.perf_counter()
        for k in range(STEPS):
            inputs, targets = batches[k % len(batches)]
            optimizer.zero_grad()
            loss(model(inputs), targets).backward()
            optimizer.step()
        return (time.perf_counter() - start) / STEPS

    times: dict[str, list[float]] = {"plain": [], "watched": []}
    with threads_for(task, size, torch.device("cpu")):
        steps()
        for turn in range(2 * rounds):
            way = "watched" if turn % 2 else "plain"
            around = ravine.watch(model, optimizer) if turn % 2 else contextlib.nullcontext()
            with around:
                # The first steps are always looked at: a run pays that once.
                steps()
                times[way].append(steps())
    plain, watched = (statistics.median(times[way]) for way in ("plain", "watched"))
    pairs = sorted(w / p for p, w in zip(times["plain"], times["watched"], strict=True))
    return {"task": name, "plain_ms": 1e3 * plain, "watched_ms": 1e3 * watched,
            "ratio": pairs[len(pairs) // 2]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    rows = [measure(name, given.rounds) for name in ("digits", "text")]
    for row in rows:
        print(f"{row['task']:8} {row['plain_ms']:8.3f} ms a step, watched {row['watched_ms']:8.3f}, "
              f"{row['ratio']:.3f}x")  # fmt: skip
    if given.save:
        given.save.write_text(
            json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
