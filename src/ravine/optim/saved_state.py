"""What a state dictionary needs beyond torch's: schedules as text, and types that stay as they were."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ravine.errors import RavineError
from ravine.expression import parse
from ravine.schedules import SCHEDULES, Schedule


def packed(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group in which a schedule is text and numbers, which `torch.load` reads safely."""
    schedule = group.get("schedule")
    if schedule is None:
        return group
    return {**group, "schedule": repr(schedule), "schedule_state": schedule.state_dict()}


def unpacked(
    saved: dict[str, Any], current: dict[str, Any], state: dict[Any, Any]
) -> dict[str, Any]:
    """Return a saved group with its schedule as an object again.

    A schedule of the user's own cannot be made from its text; then the optimizer's present one is
    kept, if it is written the same. A group saved without a schedule (by torch) leaves the present
    one in place, to go on at the steps that its weights have taken.
    """
    text = saved.get("schedule")
    if text is None:
        if current.get("schedule") is None:
            return saved
        steps = [state.get(key, {}).get("step", 0) for key in saved["params"]]
        present = {
            "schedule": current["schedule"],
            "schedule_step": max((int(step) for step in steps), default=0),
        }
        # What a torch scheduler has left there is for that scheduler.
        return {name: value for name, value in saved.items() if name != "initial_lr"} | present
    group = {name: value for name, value in saved.items() if name != "schedule_state"}
    schedule: Schedule
    mine = current.get("schedule")
    if mine is not None and repr(mine) == text:
        schedule = mine
    else:
        try:
            schedule = parse(text, SCHEDULES, kind="schedule")
        except RavineError as error:
            raise RavineError(
                "the saved learning-rate schedule cannot be made again",
                got=text,
                do="make the optimizer with the same schedule as lr before loading",
            ) from error
    schedule.load_state_dict(saved.get("schedule_state", {}))
    group["schedule"] = schedule
    return group


def restore_types(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Undo torch's cast of the state to the type of the weight (its issue 146542)."""
    saved_ids = [k for group in state_dict["param_groups"] for k in group["params"]]
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for key, weight in zip(saved_ids, weights, strict=True):
        for name, value in state_dict["state"].get(key, {}).items():
            held = optimizer.state[weight].get(name)
            if isinstance(value, Tensor) and held is not None and held.dtype != value.dtype:
                optimizer.state[weight][name] = value.detach().to(weight.device, copy=True)
        if "step" in optimizer.state[weight]:
            optimizer.state[weight]["step"] = float(optimizer.state[weight]["step"])
