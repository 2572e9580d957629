"""The scheduler of a task: when it is stepped, and its state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch

from ravine.errors import ArgumentError, ArgumentTypeError, CheckpointError, ResumeError


class Scheduling:
    """Steps a scheduler after every update or every epoch.

    Args:
        function: of the optimizer, returns anything with a ``step()``; one that must be given a
            value gets the loss.
        interval: "epoch" or "step".
        optimizer: whose learning rate has no schedule of its own.

    Raises:
        ArgumentError: the optimizer's lr is a schedule. ArgumentTypeError: nothing to step came.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        interval: Literal["epoch", "step"],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        found = [group.get("schedule") for group in optimizer.param_groups]
        scheduled = [schedule for schedule in found if schedule is not None]
        if scheduled:
            raise ArgumentError(
                "the learning rate is set by two: the task's scheduler and a schedule",
                got=f"lr={scheduled[0]!r} in the optimizer, and a scheduler",
                expected="one of them",
                do="give the optimizer a number as lr, or leave the scheduler out of the task",
            )
        self.scheduler = function(optimizer)
        step = getattr(self.scheduler, "step", None)
        if not callable(step) or isinstance(self.scheduler, torch.optim.Optimizer):
            raise ArgumentTypeError(
                "the function did not return a scheduler",
                got=type(self.scheduler).__name__,
                expected="an object with a method step()",
                do="write lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10)",
            )
        self.interval = interval
        self.wants_loss = _wants_value(step)
        self._optimizer = optimizer  # whose groups are others after load_state_dict
        self.used_lr = self._lr()

    def after_step(self, loss: torch.Tensor) -> None:
        """Step, if that is due after every update; remember the lr that the update had."""
        self.used_lr = self._lr()
        if self.interval == "step":
            self._step(loss)

    def after_epoch(self, loss: float) -> None:
        """Step, if that is due after every epoch."""
        if self.interval == "epoch":
            self._step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next steps depend on.

        Raises:
            CheckpointError: the scheduler does not tell its state.
        """
        if not hasattr(self.scheduler, "state_dict"):
            raise CheckpointError(
                "the scheduler has no state that could be written",
                where="scheduler of the task",
                got=f"{type(self.scheduler).__name__} without state_dict()",
                expected="state_dict() and load_state_dict(), as torch's schedulers have",
                do="give it both, or train without run_dir",
            )
        return {"scheduler": self.scheduler.state_dict(), "used_lr": self.used_lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was called."""
        self.scheduler.load_state_dict(state["scheduler"])
        self.used_lr = state["used_lr"]

    def _lr(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def _step(self, loss: float | torch.Tensor) -> None:
        if self.wants_loss:
            self.scheduler.step(float(loss))
        else:
            self.scheduler.step()


def check_same_lr(new_lr: bool) -> None:
    """Raise ResumeError if a run that has a scheduler is to go on with another learning rate."""
    if new_lr:
        raise ResumeError(
            "lr cannot be a new one: the scheduler goes on from the one it began with",
            expected="the lr of the run",
            do="leave the lr as it was, or start a new run",
        )


def _wants_value(step: Callable[..., Any]) -> bool:
    """Return whether a method must be called with an argument."""
    return any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in inspect.signature(step).parameters.values()
    )
