"""A stand-in for training: sends the events of a run and returns its record, computing nothing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ravine.cli import build_app
from ravine.errors import ArgumentError, NonFiniteError
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone


def history(rows: int, broken_from: int | None = None) -> list[dict[str, Any]]:
    """A falling loss; from an epoch on, if asked, one that is not finite."""
    made: list[dict[str, Any]] = []
    for epoch in range(1, rows + 1):
        part = epoch / rows
        row = {
            "epoch": epoch,
            "step": 20 * epoch,
            "lr": 1e-3 * (1 - part) + 1e-6,
            "gradient_norm": 2.0 * math.exp(-3 * part),
            "train/loss": 2.2 * math.exp(-5 * part),
            "valid/loss": 2.2 * math.exp(-4 * part) + 0.5 * max(0.0, part - 0.7),
            "valid/accuracy": 1 - 0.9 * math.exp(-5 * part),
            "seconds": 0.16,
        }
        if broken_from is not None and epoch >= broken_from:
            row |= {"train/loss": math.nan, "valid/loss": math.inf, "gradient_norm": -math.inf}
        made.append(row)
    return made


def record(rows: int = 20, broken_from: int | None = None, **changes: Any) -> dict[str, Any]:
    """The JSON of a record as the training floor makes it."""
    made = history(rows, broken_from)
    metrics = {k: v for k, v in made[-1].items() if "/" in k} if made else {}
    return {
        "kind": "train",
        "name": "digits",
        "ravine": "0.1.0",
        "config": {
            "task": "digits",
            "optimizer": "adam(lr=0.001)",
            "loss": "cross_entropy()",
            "batch_size": 64,
            "epochs": rows,
            "regularize": ["dropout(0.1)"],
            "seed": 0,
            "device": "cpu",
        },
        "environment": {"python": "3.11.9", "torch": "2.13.0", "threads": 2},
        "facts": {"weights": 12345, "seconds": 3.2, "steps": 400, "samples_per_second": 1e5},
        "metrics": metrics,
        "history": made,
        "status": "completed",
        "message": "",
    } | changes


class Record:
    """What training returns, as far as the command knows it."""

    def __init__(self, data: dict[str, Any], run_dir: str | None) -> None:
        self._data, self.run_dir = data, run_dir

    def to_json(self) -> dict[str, Any]:
        return self._data


def train(
    task: str,
    optimizer: str | None = None,
    loss: str | None = None,
    *,
    batch_size: int | str | None = None,
    epochs: int | None = None,
    regularize: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    run_dir: Path | None = None,
    listeners: Sequence[Callable[[Any], object]] = (),
) -> Record:
    """Behave as the task's name says: ``digits``, ``diverge``, ``interrupt``, ``missing``."""
    if task == "missing":
        raise ArgumentError("unknown task 'missing'", do="did you mean 'digits'?")
    print("words of the user's own task")  # noqa: T201 - what a task file of the user's may do
    epochs = epochs or 3
    status = {"diverge": "diverged", "interrupt": "interrupted"}.get(task, "completed")
    config = {
        "task": task,
        "optimizer": optimizer,
        "loss": loss,
        "batch_size": batch_size,
        "epochs": epochs,
        "regularize": list(regularize or ()),
        "seed": seed,
        "device": device,
    }
    data = record(epochs, 2 if task == "diverge" else None, name=task, status=status, config=config)

    def send(event: object) -> None:
        for listener in listeners:
            listener(event)

    place = None if run_dir is None else str(run_dir)
    send(RunStarted(task, "adam()", "mse()", 12345, epochs, 20 * epochs, 64, "fake", ("a",), place))
    for row in data["history"]:
        for step in range(row["step"] - 19, row["step"] + 1):
            send(StepDone(step, row["epoch"], row["train/loss"], row["lr"], row["gradient_norm"]))
        send(EpochDone(row))
    if run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "report.html").write_text("page", encoding="utf-8")
        (run_dir / "config.json").write_text(json.dumps(config), encoding="utf-8")
    send(RunEnded(Record(data, place)))
    if task == "diverge":
        raise NonFiniteError("the loss is NaN", where="step 21", do="lower the learning rate")
    if task == "interrupt":
        raise KeyboardInterrupt
    return Record(data, place)


if __name__ == "__main__":
    build_app(train=train)(args=sys.argv[1:], prog_name="ravine")
