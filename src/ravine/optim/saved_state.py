"""An optimizer's state as a dictionary, in torch's form, with schedules as text and numbers."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch

from ravine.errors import RavineError
from ravine.expression import parse
from ravine.optim.lean_state import in_full_where_sharded
from ravine.optim.torch_ways import in_torchs_words, with_decay
from ravine.schedules import SCHEDULES, Schedule


def packed(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state by the numbers of the weights, as torch does."""
    numbers: dict[int, int] = {}
    groups = []
    for group in optimizer.param_groups:
        for weight in group["params"]:
            numbers.setdefault(id(weight), len(numbers))
        saved = {name: value for name, value in group.items() if name != "params"}
        schedule = group.get("schedule")
        if schedule is not None:  # as what `torch.load` reads safely
            saved |= {"schedule": repr(schedule), "schedule_state": schedule.state_dict()}
        saved["params"] = [numbers[id(weight)] for weight in group["params"]]
        groups.append(in_torchs_words(saved))
    kinds: dict[str, str] = optimizer.moments  # type: ignore[attr-defined]
    state = {
        numbers.get(id(key), key): in_full_where_sharded(value, kinds)
        if isinstance(value, dict)
        else value
        for key, value in optimizer.state.items()
    }
    return {"state": state, "param_groups": groups}


def unpacked(
    saved: dict[str, Any], current: dict[str, Any], state: dict[Any, Any]
) -> dict[str, Any]:
    """Return a saved group with its schedule as an object again, and decay in our words.

    A schedule of the user's own cannot be made from its text; then the optimizer's present one is
    kept, if it is written the same. A group saved without a schedule (by torch) leaves the present
    one in place, to go on at the steps that its weights have taken.
    """
    group = with_decay({**saved, "in_backward": current["in_backward"]})  # as it is run here
    schedule: Schedule
    text = group.get("schedule")
    if text is None:
        if current.get("schedule") is not None:
            schedule = current["schedule"]
            group |= {
                "schedule": schedule,
                "schedule_state": schedule.state_dict(),
                "schedule_step": _steps_taken(saved, state),
            }
            group.pop("initial_lr", None)  # what a torch scheduler has left is for that one
        return group
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
    # A trial: the present one stays as it is, should something else not fit.
    copy.deepcopy(schedule).load_state_dict(saved.get("schedule_state", {}))
    group["schedule"] = schedule
    return group


def resume_schedule(group: dict[str, Any]) -> None:
    """Give the schedule of a loaded group the state that was saved with it."""
    state = group.pop("schedule_state", {})
    if "schedule" in group:
        group["schedule"].load_state_dict(state)


def with_kept(
    group: dict[str, Any], current: dict[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """Return a loaded group in which the options named have the present group's values."""
    group = {**group, **{name: current[name] for name in names}}
    if "lr" in names:  # and what sets it
        step = group.get("schedule_step", 0)
        for name in ("schedule", "schedule_state", "schedule_step", "initial_lr"):
            group.pop(name, None)
            if name in current:
                group[name] = current[name]
        if "schedule" in group:
            group |= {"schedule_step": step, "schedule_state": group["schedule"].state_dict()}
    return group


def _steps_taken(saved: dict[str, Any], state: dict[Any, Any]) -> int:
    steps = [state.get(key, {}).get("step", 0) for key in saved["params"]]
    return max((int(step) for step in steps), default=0)
