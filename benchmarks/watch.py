"""What watching costs: steps of the digits MLP and of the text Transformer, watched and not, in turns.

python benchmarks/watch.py [--save benchmarks/results/watch.json]

Two models of the same weights take turns step by step in one process, one watched, so that a machine
that is now quick and now slow is so for both. The overhead is that of the medians over the pairs:
of the steps that are not looked at, and of those that are, each by its share at the default.
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
"""Seconds for a row: a machine under load ends it with fewer pairs."""

EVERY = inspect.signature(ravine.watch.Watch).parameters["every"].default

MOST = {"digits": (20_000, EVERY), "text": (400, 8)}
"""Pairs of steps, and steps between two looks: of a long step a look is timed more often."""


class Model:
    """A model, its optimizer, and ways to make a step."""

    def __init__(self, name: str) -> None:
        self.task = load_task(name, 0)
        self.size = self.task.batch_size or 64
        self.loss, _ = choose_loss(self.task.loss, {})
        self.model = self.task.model
        self.model.train()
        self.optimizer = ravine.optim.AdamW(self.model.parameters(), lr=1e-4)

    def by_hand(self, inputs: Any, targets: Any) -> None:
        """Make a step as anyone's loop does."""
        self.optimizer.zero_grad()
        self.loss(self.model(inputs), targets).backward()
        self.optimizer.step()

    def of_training(self, watch: Any) -> Callable[[Any, Any], None]:
        """Return a step as `ravine.train` makes it, watched or not."""
        devices = Devices.alone(self.model)
        made = Step(self.model, self.loss, self.optimizer, devices, watch=watch)
        made.begin_epoch()

        def step(inputs: Any, targets: Any) -> None:
            loss = made.gradient(inputs, targets)
            loss.item()
            made.update()
            if watch is not None:
                watch.observe(loss)

        return step


def measure(name: str) -> list[dict[str, Any]]:
    plain, watched = Model(name), Model(name)
    cpu = torch.device("cpu")
    batches = list(training_batches(plain.task.train, plain.size, cpu, 0).epoch(1))
    pairs, every = MOST[name]
    rows = []
    with threads_for(plain.task, plain.size, cpu):
        watch = ravine.watch.Watch(watched.model, watched.optimizer, every=every, warn=False)
        watch.begin()
        steps = plain.of_training(None), watched.of_training(watch)
        rows.append(row(name, "ravine.train", times(*steps, batches, pairs), every))
        with ravine.watch.Watch(watched.model, watched.optimizer, every=every, warn=False):
            found = times(plain.by_hand, watched.by_hand, batches, pairs)
            rows.append(row(name, "a loop of one's own", found, every))
    return rows


def times(plain: Any, watched: Any, batches: list[Any], pairs: int) -> list[tuple[float, float]]:
    """Return the seconds of a step without and one with, pair by pair."""
    found = []
    end = time.monotonic() + LIMIT
    for count in range(pairs):
        inputs, targets = batches[count % len(batches)]
        start = time.perf_counter()
        plain(inputs, targets)
        middle = time.perf_counter()
        watched(inputs, targets)
        found.append((middle - start, time.perf_counter() - middle))
        if time.monotonic() > end:
            break
    return found


def row(name: str, loop: str, found: list[tuple[float, float]], every: int) -> dict[str, Any]:
    plain = statistics.median(p for p, _ in found[3:])
    more = {k: w - p for k, (p, w) in enumerate(found) if k >= 3}  # a run pays the first three once
    # A loop of one's own makes ready at the end of the step before.
    around = {0, every - 1} if loop != "ravine.train" else {0}
    between = statistics.median(v for k, v in more.items() if k % every not in around)
    looks = [
        sum(more[k + a - (every if a else 0)] for a in around)
        for k in range(every, len(found), every)
    ]
    looked = statistics.median(looks)
    mean = (looked + (EVERY - len(around)) * between) / EVERY
    return {
        "task": name,
        "loop": loop,
        "every": EVERY,
        "pairs": len(found),
        "plain_us": round(1e6 * plain, 2),
        "more_between_us": round(1e6 * between, 2),
        "more_for_a_look_us": round(1e6 * looked, 2),
        "overhead": round(mean / plain, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for name in MOST:
        for one in measure(name):
            rows.append(one)
            print(f"{one['task']:8} {one['loop']:20} {one['plain_us']:10.1f} us a step, more for a look "
                  f"{one['more_for_a_look_us']:8.1f}, between {one['more_between_us']:8.1f}: "
                  f"{one['overhead']:+.2%}", flush=True)  # fmt: skip
    if given.save:
        about = {**environment(), "load before": round(load, 2)}
        given.save.write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
