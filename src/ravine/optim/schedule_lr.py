"""A schedule given as lr, in the form of a torch scheduler, for loops that insist on an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ravine.errors import ArgumentError
from ravine.optim.following import follow


class ScheduleLR(LRScheduler):
    """The schedule that an optimizer has as lr, for a loop that wants a scheduler object as well.

    The optimizer goes on to ask its schedule itself, at every step. `step` only writes the learning
    rate of the step to come into the groups, where loggers of other people's loops read it (after
    `optimizer.step` it is that of the step made). Calling it more often or never changes no weight,
    and there is nothing to save: the optimizer's state holds the schedule and its step.

    Args:
        optimizer: an optimizer of this library with a schedule as lr, or a wrapper that shows its
            ``param_groups``. Groups whose lr is a number keep it.

    Raises:
        ArgumentError: no group has a schedule; from `step`, a torch scheduler sets lr too.

    Example:
        >>> import torch
        >>> from ravine.optim import SGD, ScheduleLR
        >>> from ravine.schedules import warmup
        >>> optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=warmup(4) >> 1.0)
        >>> scheduler = ScheduleLR(optimizer)
        >>> optimizer.step()
        >>> scheduler.get_last_lr()
        [0.25]
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]

    Differs from: torch's schedulers set the learning rate; this one shows it.
    """

    def __init__(self, optimizer: Any) -> None:
        # Not torch's: that wraps optimizer.step to count it, and claims lr by `initial_lr`.
        if not any(group.get("schedule") is not None for group in optimizer.param_groups):
            raise ArgumentError(
                "the optimizer has no schedule to show",
                where="ScheduleLR",
                got=f"lr {', '.join(repr(group['lr']) for group in optimizer.param_groups)}",
                expected="an optimizer of ravine.optim whose lr is a schedule",
                do="give the schedule as lr, or a torch scheduler instead of this",
            )
        self.optimizer: torch.optim.Optimizer = optimizer
        self.last_epoch = 0
        self._step_count = 1  # accelerate adds to it
        self.step()

    def step(self, epoch: int | None = None) -> None:
        """Write the learning rate of the step to come into the groups; ``epoch`` is not used."""
        for group in self.optimizer.param_groups:
            if group.get("schedule") is not None:
                follow(group, type(self.optimizer).__name__)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of every group, as it stands there."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of every group, as it stands there."""
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: what there is to save is in the optimizer's."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take an empty state.

        Raises:
            ArgumentError: the state is of a torch scheduler.
        """
        if state_dict:
            raise ArgumentError(
                "this state belongs to another scheduler",
                where="ScheduleLR.load_state_dict",
                got=", ".join(map(str, state_dict)),
                expected="an empty state",
                do="go on with the scheduler that it was saved from, or leave it out",
            )
