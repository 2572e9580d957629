"""The way to the state before a bad step: runs repeat their bits, so it is gone a second time.

So nothing is copied or looked at beside the loss in steps that are good.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ravine.training.batches import Batch
from ravine.training.finite import all_finite, gradients
from ravine.training.random_state import random_state
from ravine.training.reporter import Reporter
from ravine.training.state import load_state

if TYPE_CHECKING:
    from ravine.training.loop import Loop

__all__ = ["to_step_before"]


class _ReachedError(Exception):
    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class _BadError(Exception):
    def __init__(self, step: int) -> None:
        self.step = step


class _Careful:
    """Stands in for the step of a loop: looks at everything, and ends before a given step.

    Args:
        loop: whose step is stood in for.
        end: the step before which it ends, from 1.
        gradients: whether losses and gradients are looked at; weights are always.
    """

    def __init__(self, loop: Loop, end: int, gradients: bool) -> None:
        self._loop, self._end, self._gradients = loop, end, gradients
        self._step = loop.current_step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def gradient(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self._loop.step + 1 >= self._end:
            raise _ReachedError((inputs, targets))
        loss: Tensor = self._step.gradient(inputs, targets)
        fine = math.isfinite(loss.item()) and all_finite(gradients(self._loop))
        if self._gradients and not fine:
            raise _BadError(self._loop.step + 1)
        return loss

    def update(self) -> None:
        self._step.update()
        if not all_finite(list(self._loop.model.parameters())):
            raise _BadError(self._loop.step + 1)


def to_step_before(
    loop: Loop, state: dict[str, Any], step: int, *, gradients: bool = True
) -> tuple[int, Batch]:
    """Put the loop before the first bad step; return that step and its batch.

    Args:
        loop: the loop of the run.
        state: an earlier state of it, which is finite.
        step: the step, from 1, at which something was seen; the bad one may be before.
        gradients: whether a loss or gradient that is not finite makes a step a bad one.
    """
    while True:
        load_state(loop, state, keep_lr=False)
        with _quiet(loop), _standing_in(loop, _Careful(loop, step, gradients)):
            try:
                while True:
                    loop.run_epoch()
            except _BadError as bad:
                step = bad.step
            except _ReachedError as reached:
                if loop.batch == 0:  # as at the end of the epoch before
                    loop.epoch_random = random_state()
                return step, reached.batch


@contextlib.contextmanager
def _standing_in(loop: Loop, careful: _Careful) -> Iterator[None]:
    step = loop.current_step
    loop.current_step = careful  # type: ignore[assignment]
    try:
        yield
    finally:
        loop.current_step = step


@contextlib.contextmanager
def _quiet(loop: Loop) -> Iterator[None]:
    """Tell nobody of steps that were told of before; a signal still ends the run."""
    before = loop.reporter, loop.on_step, loop.after_step
    loop.reporter, loop.on_step, loop.after_step = Reporter(), None, loop.check
    loop.reporter.progress.smoothed.load(before[0].progress.smoothed.state())
    try:
        yield
    finally:
        now = loop.reporter.progress.smoothed.state()
        loop.reporter, loop.on_step, loop.after_step = before
        loop.reporter.progress.smoothed.load(now)
