"""The state of a run between two steps: all that decides what comes after."""

from __future__ import annotations

from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ResumeError
from ravine.optim import Optimizer
from ravine.optim.matrix_optimizer import MatrixOptimizer
from ravine.optim.sharding import is_sharded
from ravine.optim.shares import empty_state
from ravine.training.devices import Slices, parted, placed
from ravine.training.loop import Loop
from ravine.training.lowering import FACTOR, lower_schedules
from ravine.training.random_state import random_state, set_random_state

COUNTERS = (
    "step",
    "epoch",
    "batch",
    "seconds",
    "total",
    "rows",
    "samples",
    "skipped",
    "skipped_in_a_row",
    "rollbacks",
)


def state_of(loop: Loop) -> dict[str, Any]:
    """Return the state of a loop, as dictionaries of tensors and numbers; the tensors are its own.

    Several processes ask for it together. Of a tensor that is divided over them each gets its
    `Part`; all else is what counts in the first: the state has the same form for any number of them.
    """
    loop.settle()
    under_way = loop.batch > 0
    random, *others = loop.devices.team.gathered(random_state())
    state = {
        "counters": {name: getattr(loop, name) for name in COUNTERS},
        "model": _model_state(loop.model),
        "optimizer": loop.optimizer.state_dict(),
        "loss": loop.loss.state_dict() if isinstance(loop.loss, nn.Module) else None,
        "stopper": None if loop.stopper is None else loop.stopper.state_dict(),
        "parts": [part.state_dict() for part in loop.parts],
        "scheduler": None if loop.scheduler is None else loop.scheduler.state_dict(),
        "batches": loop.batches.state_dict(),
        "precision": loop.devices.precision.state_dict(),
        "random": random,
        "random_of_others": others,
        "smoothed": loop.reporter.progress.smoothed.state(),
        # At the end of an epoch these follow from the rest.
        "epoch_random": loop.epoch_random if under_way else None,
        "gradient_norm": loop.gradient_norm() if under_way else None,
    }
    return parted(state) if loop.devices.layout.divided else state


def check_form(state: Any) -> None:
    """Look whether a checkpoint holds what a `Keeper` writes.

    Raises:
        ResumeError: it does not.
    """
    rows = state.get("history") if isinstance(state, dict) else None
    if (
        not isinstance(rows, list)
        or not all(isinstance(row, dict) and "epoch" in row for row in rows)
        or not isinstance(state.get("loop"), dict)
        or not isinstance(state.get("best", ""), (float, NoneType))
    ):
        raise ResumeError(
            "the checkpoint does not hold the state of a run",
            got=", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__,
            expected="loop, history and best",
        )


def load_state(loop: Loop, state: dict[str, Any], *, keep_lr: bool) -> None:
    """Put a loop into the state that `state_of` returned.

    Args:
        loop: made as the one whose state it is.
        state: what `state_of` returned.
        keep_lr: keep the learning rate that the loop's optimizer has now.

    Raises:
        ResumeError: the state is that of another model, optimizer, scheduler or early stopping.
    """
    try:
        state = placed(state, _divided_as(loop, state))
        _load_model(loop.model, state["model"])
        _load_optimizer(loop.optimizer, state["optimizer"], keep_lr=keep_lr)
        if isinstance(loop.loss, nn.Module):
            loop.loss.load_state_dict(state["loss"])
        if loop.stopper is not None:
            loop.stopper.load_state_dict(state["stopper"])
        if loop.scheduler is not None:
            loop.scheduler.load_state_dict(state["scheduler"])
        for part, kept in zip(loop.parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        loop.devices.precision.load_state_dict(state["precision"])
        loop.batches.load_state_dict(state["batches"])
        loop.forget()
        for name in COUNTERS:
            setattr(loop, name, _number(name, state["counters"][name]))
        loop.reporter.progress.smoothed.load(state["smoothed"])
        loop.loaded_norm = None
        if loop.batch:
            loop.epoch_random = state["epoch_random"]
            loop.loaded_norm = state["gradient_norm"]
        if keep_lr:
            loop.rollbacks = 0  # they lowered another learning rate
        lower_schedules(loop.optimizer, FACTOR**loop.rollbacks)
        _load_random(loop, state)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResumeError(
            "the checkpoint does not fit the run",
            got=f"{type(error).__name__}: {error}",
            expected="the model, optimizer, scheduler, loss and early stopping that it was written with",
            do="resume with the task as it was, or start a new run",
        ) from error


def _load_random(loop: Loop, state: dict[str, Any]) -> None:
    set_random_state(state["random"])
    rank = loop.devices.team.rank
    loop.devices.own_masks(loop.model)
    if rank > len(state["random_of_others"]):  # there are more processes now
        loop.devices.own_random(loop.seed, loop.step)
    elif rank:
        set_random_state(state["random_of_others"][rank - 1])


def _number(name: str, value: object) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= -1:
        return value
    raise ValueError(f"{name} is {value!r}")


def _model_state(model: nn.Module) -> dict[str, Any]:
    saved = model.state_dict()
    # Buffers that a model leaves out of its state_dict decide its output all the same.
    more = {name: value for name, value in model.named_buffers() if name not in saved}
    return {"state": dict(saved), "buffers": more}


def _load_model(model: nn.Module, state: dict[str, Any]) -> None:
    model.load_state_dict(state["state"])
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in state["buffers"].items():
            buffers[name].copy_(value)


def _load_optimizer(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], *, keep_lr: bool
) -> None:
    if not keep_lr:
        optimizer.load_state_dict(state)
    elif isinstance(optimizer, Optimizer):
        optimizer.load_state_dict(state, keep=["lr"])
    else:
        rates: list[float | Tensor] = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def _divided_as(loop: Loop, state: dict[str, Any]) -> dict[str, Any]:
    """Return tensors that are divided as those of the same names in the state are to be."""
    weights = [w for group in loop.optimizer.param_groups for w in group["params"]]
    model = loop.model.state_dict()
    matrices = isinstance(loop.optimizer, MatrixOptimizer)
    states = {
        k: {name: _divided_like(weights[k], value, matrices) for name, value in held.items()}
        for k, held in state["optimizer"]["state"].items()
    }
    return {
        "model": {"state": model},
        "optimizer": {"state": states},
        "stopper": {"weights": model},
    }


def _divided_like(weight: Tensor, value: Any, matrices: bool) -> Tensor | None:
    """Return a tensor divided as this state of a weight is to be, None where it is not."""
    shape = tuple(value.shape) if isinstance(value, (Tensor, Slices)) else ()
    if shape == tuple(weight.shape):
        return weight
    return empty_state(weight, shape) if shape and matrices and is_sharded(weight) else None
