"""A whole run on digits against loops written by hand: `python benchmarks/training.py`.

All cases train the same model on the same data with Adam for 20 epochs in batches of 64, and take
turns in one process. Ravine validates after every epoch and keeps its record; the others only
train. Each number of threads is a comparison of its own; on a busy machine small models lose by a
second thread, and `ravine.train` then takes one (see `ravine.training.threads`).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

import ravine
from ravine.bench.timing import interleaved
from ravine.tasks import Task, load_task

EPOCHS, BATCH, LR = 20, 64, 1e-3


def ours(task: Task) -> float:
    """`ravine.train`, with validation, test and record."""
    record = ravine.train(
        task, f"adam(lr={LR})", epochs=EPOCHS, batch_size=BATCH, regularize=(), loss="cross_entropy"
    )
    return record.metrics["train/loss"]


def tight(task: Task) -> float:
    """Shuffled row numbers into tensors, the fused Adam of torch, nothing else."""
    model = copy.deepcopy(task.model)
    inputs, targets = task.train
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs), generator=generator)
        for start in range(0, len(inputs), BATCH):
            rows = order[start : start + BATCH]
            loss = functional.cross_entropy(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss.item()


def usual(task: Task) -> float:
    """The loop of torch's tutorials: a DataLoader, the default Adam, the loss of every step."""
    model: nn.Module = copy.deepcopy(task.model)
    loader = DataLoader(TensorDataset(*task.train), batch_size=BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    criterion = nn.CrossEntropyLoss()
    model.train()
    for _ in range(EPOCHS):
        total = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total


CASES: dict[str, Callable[[Task], float]] = {"ravine": ours, "tight": tight, "usual": usual}


def main() -> None:
    quick = arguments(__doc__ or "").quick
    task = load_task("digits", 0)
    rows = []
    line("", "ravine ms", "tight ms", "usual ms", "tight/ravine", "usual/ravine")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cases = {name: (lambda run=run: run(task)) for name, run in CASES.items()}
        times = interleaved(cases, seconds=6.0 if quick else 60.0, rounds=3 if quick else 15)
        ratios = {name: round(times[name] / times["ravine"], 3) for name in ("tight", "usual")}
        rows.append(
            {
                "threads": threads,
                "milliseconds": {name: round(t * 1e3, 2) for name, t in times.items()},
                "ratio": ratios,
            }
        )
        line(
            f"digits, {threads} thread{'s' if threads > 1 else ''}",
            *(f"{times[name] * 1e3:.1f}" for name in CASES),
            *(f"{ratio:.2f}" for ratio in ratios.values()),
        )
    if not quick:
        print(save("training", {"rows": rows}, "python benchmarks/training.py"))


if __name__ == "__main__":
    main()
