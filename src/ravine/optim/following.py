"""A schedule that was given as lr is asked at every step."""

from __future__ import annotations

from typing import Any

from ravine.errors import ArgumentError


def follow(group: dict[str, Any], owner: str) -> None:
    """Set the learning rate of a group to what its schedule says for the step to be made.

    The step is counted when it is made, not here.

    Raises:
        ArgumentError: a scheduler of torch sets it too.
    """
    if "initial_lr" in group:
        raise ArgumentError(
            "two schedules set the learning rate",
            where=f"{owner}, lr",
            got=f"{group['schedule']!r} as lr, and a torch.optim.lr_scheduler",
            do="give lr as a number, or leave torch's scheduler out; a loop that insists on a "
            "scheduler takes ravine.optim.ScheduleLR(optimizer)",
        )
    group["lr"] = group["schedule"](group["schedule_step"])
