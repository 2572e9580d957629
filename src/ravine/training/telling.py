"""What is said of a run before it begins and after it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ravine.optim import Optimizer
from ravine.training.choices import Choices
from ravine.training.events import RunStarted
from ravine.training.loop import Loop

__all__ = ["facts_of", "noted", "started"]


def started(choices: Choices, loop: Loop, notes: Sequence[str], run_dir: Path | None) -> RunStarted:
    """Return the first event of a run."""
    optimizer = loop.optimizer
    return RunStarted(
        task=choices.task.name,
        optimizer=choices.config["optimizer"],
        loss=choices.config["loss"],
        weights=sum(p.numel() for p in loop.model.parameters()),
        epochs=choices.epochs,
        steps=choices.epochs * (loop.batches.steps or 0),
        batch_size=loop.batches.size,
        kernel=optimizer.explain() if isinstance(optimizer, Optimizer) else "torch",
        notes=tuple(notes),
        run_dir=None if run_dir is None else str(run_dir),
        step=loop.step,
        epoch=loop.epoch,
        config=choices.config,
    )


def facts_of(choices: Choices, loop: Loop, seconds: float) -> dict[str, Any]:
    """Return the facts of a record: sizes, speed, and how the weights were stepped."""
    optimizer = loop.optimizer
    ours = isinstance(optimizer, Optimizer)
    return {
        "weights": sum(p.numel() for p in loop.model.parameters()),
        "optimizer": repr(optimizer) if ours else " ".join(str(optimizer).split()),
        "kernel": optimizer.explain() if ours else "torch",  # type: ignore[attr-defined]
        "train_samples": loop.batches.rows,
        "seconds": seconds,
        "steps": loop.step,
        "samples_per_second": loop.samples_per_second,
        **loop.devices.facts(),
        **{name: count for name in ("skipped", "rollbacks") if (count := getattr(loop, name))},
        **choices.task.facts,
    }


@contextlib.contextmanager
def noted(error: BaseException) -> Iterator[None]:
    """Add what goes wrong in the block to an error as a note."""
    try:
        yield
    except Exception as another:
        error.add_note(f"and then: {type(another).__name__}: {another}")
