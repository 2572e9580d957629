"""Whether a run that goes on has the data that it began with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from ravine.data import Source
from ravine.data.fingerprint import of_array, of_values
from ravine.errors import ResumeError
from ravine.report import to_strict_json
from ravine.tasks import Task
from ravine.tasks.checks import Data, rows_of

__all__ = ["check_data", "fingerprints"]

NEAR = 1e-4
"""How far the numbers of other surroundings may be apart, as a share of their norm."""


def fingerprints(task: Task) -> dict[str, Any]:
    """Return what tells the data of a task from other data, by part.

    Tensors and the sources of `ravine.data` have checksums. Of another Dataset the number of rows
    is known alone: reading it may take long, or draw random numbers. Test data has no part in a run.
    """
    parts = {"train": task.train, "valid": task.valid}
    found = {name: _facts(data) for name, data in parts.items() if data is not None}
    read: dict[str, Any] = json.loads(to_strict_json(found))  # as it will be read: no tuples
    return read


def check_data(
    saved: object, now: Mapping[str, Any], run_dir: Path, *, same_surroundings: bool
) -> list[str]:
    """Compare fingerprints; return notes on what may be the same all the same.

    Args:
        saved, now: what `fingerprints` returned when the run began, and does now.
        run_dir: for the message.
        same_surroundings: nothing that decides the bits of a run has changed. Where it has, numbers
            that a task computes may differ by their rounding.

    Raises:
        ResumeError: the data is another; both are shown.
    """
    if not isinstance(saved, Mapping):
        return [
            "the run began without a fingerprint of its data: whether it is the same is not known"
        ]
    notes, differ = [], []
    for name, before, after in _different(saved, now, ()):
        if not same_surroundings and _near(before, after):
            notes.append(f"{name} differs from that of the beginning, but by no more than rounding")
        else:
            differ.append((name, before, after))
    if differ:
        raise ResumeError(
            "the data differs from what the run was started with",
            where=str(run_dir),
            got="; ".join(f"{name}: {_shown(after)}" for name, _, after in differ),
            expected="; ".join(f"{name}: {_shown(before)}" for name, before, _ in differ),
            do="give the data as it was, or start a new run",
        )
    return notes


def _facts(data: Data) -> dict[str, Any]:
    if isinstance(data, Source):
        return data.fingerprint()
    if isinstance(data, tuple):
        return {name: of_values(one) for name, one in zip(("X", "y"), data, strict=True)}
    if isinstance(data, DataLoader):
        return _facts(data.dataset)
    if isinstance(data, TensorDataset):
        return {str(place): of_values(one) for place, one in enumerate(data.tensors)}
    if isinstance(data, Subset):
        return {"selected": of_array(torch.as_tensor(data.indices)), "of": _facts(data.dataset)}
    return {"rows": rows_of(data)}


def _different(
    before: Any, after: Any, path: tuple[str, ...]
) -> Iterator[tuple[str, object, object]]:
    """Return the innermost things that differ; an array, a text or a table is one thing."""
    if before == after:
        return
    inner = isinstance(before, Mapping) and isinstance(after, Mapping)
    if not inner or "sha256" in before or "sha256" in after:
        yield " ".join(path), before, after
        return
    for name in dict.fromkeys([*after, *before]):
        yield from _different(before.get(name), after.get(name), (*path, str(name)))


def _near(before: Any, after: Any) -> bool:
    """Whether two arrays hold the same numbers but for rounding."""
    try:
        if any(before[name] != after[name] for name in ("shape", "dtype")):
            return False
        apart = max(abs(before[name] - after[name]) for name in ("norm", "mark"))
        return bool(apart <= NEAR * before["norm"])
    except (KeyError, TypeError):
        return False


def _shown(facts: Any) -> str:
    if not isinstance(facts, Mapping):
        return "none" if facts is None else str(facts)
    short = {name: value for name, value in facts.items() if name not in ("norm", "mark")}
    if isinstance(short.get("sha256"), str):
        short["sha256"] = short["sha256"][:16]
    return ", ".join(f"{name} {value}" for name, value in short.items())
