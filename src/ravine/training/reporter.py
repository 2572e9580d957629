"""Tells the listeners of steps, now and then, with what a person wants to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from ravine.training.events import StepDone
from ravine.training.pace import Pace
from ravine.training.progress import Progress

if TYPE_CHECKING:
    from ravine.training.loop import Loop

__all__ = ["EVERY", "Reporter"]

EVERY = 0.1
"""Seconds between two events of steps, at least."""


class Reporter:
    """Sends `StepDone` at most ten times a second, and takes at most a hundredth of the time.

    Args:
        emit: called with the events, or None for nobody.
        agreed: returns the largest number in all processes of the run: they tell together, since
            the norm of the gradient may need all of them.
    """

    def __init__(
        self,
        emit: Callable[[StepDone], None] | None = None,
        agreed: Callable[[int], int] = int,
    ) -> None:
        self.progress = Progress()
        self._agreed = agreed
        self._emit = emit
        self._pace = Pace(EVERY)

    def after_step(self, loop: Loop, loss: Tensor) -> None:
        """Tell of the step that was just made, if it is time.

        Args:
            loop: where the run stands.
            loss: that of the step's batch.
        """
        if not self._agreed(self._emit is not None and self._pace.due()):
            return
        norm = loop.gradient_norm()
        if self._emit is None:
            return
        steps = loop.batches.steps
        left = self.progress.report(
            loop.step,
            loop.samples,
            steps=None if steps is None else steps * loop.epochs,
            ends=loop.epochs - loop.epoch,
        )
        self._emit(
            StepDone(
                step=loop.step,
                epoch=loop.epoch + 1,
                loss=float(loss.detach()),
                lr=loop.lr,
                gradient_norm=norm,
                smoothed_loss=self.progress.smoothed.value,
                samples_per_second=self.progress.samples_per_second,
                seconds_left=left,
                rows=loop.samples,
            )
        )
        self._pace.done()
