"""Steps that are left out because their loss or gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ravine.errors import ArgumentError
from ravine.training.batches import Batch
from ravine.training.events import Recovered
from ravine.training.finite import finite_everywhere, gradients, nonfinite_error
from ravine.training.recovery.policy import SKIPS

if TYPE_CHECKING:
    from ravine.training.loop import Loop

__all__ = ["Skipper"]


OFTEN = 10
"""So many steps that are left out are told of; of more, each whose number is a power of two."""


class Skipper:
    """Looks at every loss and gradient before its step; buffers that a batch spoilt come back.

    It waits for the device at every step. Random numbers that the batch drew stay drawn.

    Args:
        tell: called with what was left out.
    """

    def __init__(self, tell: Callable[[Recovered], object]) -> None:
        self._tell = tell
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self.batch: Batch | None = None
        """The batch of the last step that was left out."""

    def before(self, loop: Loop) -> None:
        """Remember the buffers, which a forward pass may change (batch norm)."""
        if any(group.get("in_backward") for group in loop.optimizer.param_groups):
            raise ArgumentError(
                "a step that is made inside of the backward pass cannot be left out",
                got="nonfinite='skip' and an optimizer with in_backward=True",
                do="leave one of the two out",
            )
        self._buffers = [(buffer, buffer.clone()) for buffer in loop.model.buffers()]

    def refuses(self, loop: Loop, loss: Tensor, batch: Batch) -> bool:
        """Return whether the step whose gradient was just taken is left out, and count it.

        Raises:
            NonFiniteError: too many in a row.
        """
        value = loss.item()
        if math.isfinite(value) and finite_everywhere(loop, gradients(loop)):
            loop.skipped_in_a_row = 0
            return False
        what = "a gradient is not finite" if math.isfinite(value) else f"the loss became {value}"
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self.batch = batch
        if loop.skipped_in_a_row >= SKIPS:
            raise nonfinite_error(loop, f"{what}, after {SKIPS} skipped steps", loop.step + 1)
        loop.skipped += 1
        loop.skipped_in_a_row += 1
        if loop.skipped > OFTEN and loop.skipped & (loop.skipped - 1):
            return True
        text = f"step {loop.step + 1} left out in epoch {loop.epoch + 1}: {what}"
        self._tell(Recovered(loop.step, loop.epoch, f"{text} ({loop.skipped} so far)"))
        return True
