"""What watching costs: steps of the digits MLP and of the text Transformer, watched and not, in turns.

python benchmarks/watch.py [--save benchmarks/results/watch.json]

In one process, blocks of steps with and without take turns, so that a machine that is now quick and
now slow is so for both. Steps that are looked at and steps that are not are timed apart: their
medians are steady after few of them, and the share of each at the default follows.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ravine
from ravine.tasks import load_task
from ravine.training.batches import training_batches
from ravine.training.catalog import choose_loss
from ravine.training.devices import Devices
from ravine.training.environment import environment
from ravine.training.step import Step
from ravine.training.threads import threads_for

LIMIT = 60.0
"""Seconds for a row: a machine under load ends it with fewer turns."""

BLOCK = inspect.signature(ravine.watch.Watch).parameters["every"].default
"""Steps in a turn: the first of each is looked at."""


class Turns:
    """A model, its optimizer and batches, stepped by a way of making steps."""

    def __init__(self, name: str) -> None:
        self.task = load_task(name, 0)
        self.size = self.task.batch_size or 64
        self.loss, _ = choose_loss(self.task.loss, {})
        self.model = self.task.model
        self.optimizer = ravine.optim.AdamW(self.model.parameters(), lr=1e-4)
        cpu = torch.device("cpu")
        self.batches = list(training_batches(self.task.train, self.size, cpu, 0).epoch(1))
        self.model.train()
        self.devices = Devices.alone(self.model)
        self.count = 0

    def times(self, step: Callable[[Any, Any], object]) -> list[float]:
        """Return the seconds of each step of a block."""
        found = []
        for _ in range(BLOCK):
            inputs, targets = self.batches[self.count % len(self.batches)]
            self.count += 1
            start = time.perf_counter()
            step(inputs, targets)
            found.append(time.perf_counter() - start)
        return found

    def by_hand(self, inputs: Any, targets: Any) -> None:
        """Make a step as anyone's loop does."""
        self.optimizer.zero_grad()
        self.loss(self.model(inputs), targets).backward()
        self.optimizer.step()

    def of_training(self, watch: Any) -> Callable[[Any, Any], None]:
        """Return a step as `ravine.train` makes it, watched or not."""
        made = Step(self.model, self.loss, self.optimizer, self.devices, watch=watch)
        made.begin_epoch()

        def step(inputs: Any, targets: Any) -> None:
            loss = made.gradient(inputs, targets)
            loss.item()
            made.update()
            if watch is not None:
                watch.observe(loss)

        return step


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    turns = Turns(name)
    with threads_for(turns.task, turns.size, torch.device("cpu")):
        turns.times(turns.by_hand)
        return [in_training(turns, rounds), in_a_loop(turns, rounds)]


def in_training(turns: Turns, rounds: int) -> dict[str, Any]:
    """Time `ravine.train`'s own steps."""
    watch = ravine.watch.Watch(turns.model, turns.optimizer, warn=False)
    watch.begin(turns.count)
    ways = {"plain": turns.of_training(None), "watched": turns.of_training(watch)}
    turns.times(ways["watched"])  # its first three steps are looked at: a run pays that once
    times: dict[str, list[list[float]]] = {way: [] for way in ways}
    end = time.monotonic() + LIMIT
    for _ in range(rounds):
        for way, step in ways.items():
            times[way].append(turns.times(step))
        if time.monotonic() > end:
            break
    return row(turns, "ravine.train", times)


def in_a_loop(turns: Turns, rounds: int) -> dict[str, Any]:
    """Time a loop of anyone's inside of ``with ravine.watch(...)``."""
    times: dict[str, list[list[float]]] = {"plain": [], "watched": []}
    end = time.monotonic() + LIMIT
    for _ in range(rounds):
        times["plain"].append(turns.times(turns.by_hand))
        with ravine.watch.Watch(turns.model, turns.optimizer, warn=False):
            turns.times(turns.by_hand)
            times["watched"].append(turns.times(turns.by_hand))
        if time.monotonic() > end:
            break
    return row(turns, "a loop of one's own", times)


def row(turns: Turns, loop: str, times: dict[str, list[list[float]]]) -> dict[str, Any]:
    plain = statistics.median(t for block in times["plain"] for t in block)
    # Of a block one step is looked at: the first, as the count of steps is a multiple of it then.
    looked = statistics.median(block[0] for block in times["watched"])
    between = statistics.median(t for block in times["watched"] for t in block[1:])
    mean = (looked + (BLOCK - 1) * between) / BLOCK
    return {
        "task": turns.task.name,
        "loop": loop,
        "every": BLOCK,
        "turns": len(times["plain"]),
        "plain_us": round(1e6 * plain, 2),
        "between_us": round(1e6 * between, 2),
        "looked_at_us": round(1e6 * looked, 2),
        "overhead": round(mean / plain - 1, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for name, rounds in (("digits", given.rounds), ("text", max(given.rounds // 20, 2))):
        for one in measure(name, rounds):
            rows.append(one)
            print(f"{one['task']:8} {one['loop']:20} {one['plain_us']:10.1f} us a step, looked at "
                  f"{one['looked_at_us']:10.1f}, between {one['between_us']:10.1f}: "
                  f"{one['overhead']:+.2%}", flush=True)  # fmt: skip
    if given.save:
        about = {**environment(), "load before": round(load, 2)}
        given.save.write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
