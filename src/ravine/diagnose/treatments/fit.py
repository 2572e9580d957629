"""Remedies of what a model holds on to: penalties, dropout, wrong rows, too many epochs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn

from ravine.diagnose.probes.arrays import table
from ravine.diagnose.probes.dropout import PENALTIES
from ravine.diagnose.probes.learnable import learned
from ravine.diagnose.program import Change
from ravine.diagnose.quality import kind_of
from ravine.regularize import insert_dropout, set_dropout
from ravine.tasks import Task


def _no_dropout(model: nn.Module) -> None:
    set_dropout(model, 0.0)


def _no_penalty(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for name in PENALTIES:
            if name in group:
                group[name] = 0.0


def _no_regularizers(task: Task) -> Task:
    return dataclasses.replace(task, regularize=())


_WITHOUT = ("regularize", "dropout(0)")

NO_DROPOUT = Change("leave the dropout out", model=_no_dropout, written=(_WITHOUT,))
NO_PENALTY = Change("leave the weight decay out", groups=_no_penalty)
FREE = Change(
    "leave dropout and weight decay out",
    model=_no_dropout,
    groups=_no_penalty,
    task=_no_regularizers,
    written=(("regularize", "none"), _WITHOUT),
)


def _dropped(model: nn.Module) -> None:
    insert_dropout(model, 0.3)


MORE_DROPOUT = Change(
    "put dropout(0.3) between the layers",
    model=_dropped,
    written=(("regularize", "dropout(0.3)"),),
)


def _decayed(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.1


MORE_DECAY = Change("take a weight decay of 0.1", groups=_decayed)


STOP_EARLY = Change("end with the epoch of the least validation loss", best=True)


def _agreeing(task: Task) -> Task:
    if not isinstance(task.train, tuple):
        return task
    X, y = task.train
    seen = learned(table(X, y, kind=kind_of(y)), rows=len(X))
    if seen is None or not seen.labels:
        return task
    agrees = np.zeros(len(X), dtype=bool)
    agrees[seen.rows] = seen.predicted.argmax(1) == seen.targets
    kept = torch.as_tensor(agrees, device=y.device)
    changes: dict[str, Any] = {"train": (X[kept], y[kept])}
    return dataclasses.replace(task, **changes)


AGREEING = Change(
    "train without the rows whose label a cross-validated baseline denies", task=_agreeing
)
