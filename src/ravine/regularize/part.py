"""What acts while a run trains: on a batch, around its gradient, after a step, after an epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Part:
    """A regulariser at work in one run. A training loop calls all of these; here they do nothing.

    What it draws follows from the seed and the step alone, so that a run which is resumed needs
    nothing of it; what it gathers over the run is in `state_dict`.
    """

    def begin(self, model: nn.Module) -> None:
        """Take the model that will be trained; called once, before everything else."""

    def batch(self, batch: Batch, step: int) -> Batch:
        """Return what the model is trained on in the place of a batch; steps count from 1."""
        return batch

    @contextlib.contextmanager
    def second_gradient(self, weights: list[nn.Parameter]) -> Iterator[None]:
        """Move the weights to where the gradient is taken that counts, and back; see `ascends`."""
        yield

    @property
    def ascends(self) -> bool:
        """Whether the gradient is taken a second time, inside of `second_gradient`."""
        return False

    def after_step(self, step: int) -> None:
        """Act on the weights that a step left."""

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Act at the end of an epoch, counted from 1, of so many."""

    def averages(self) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of a weight and of what is evaluated in its place."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return what was gathered, for a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
