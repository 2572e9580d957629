# mypy: disable-error-code="no-untyped-call"
"""What a row loss brings: its formula, as plain PyTorch operations and as a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ravine.losses.bounds import Bound

IGNORED = -(2**63)
"""What stands for the class of left out rows where a loss has none."""


class Arrived(NamedTuple):
    """What a gradient that is there already is multiplied with, unless 1 arrived; on a GPU."""

    scale: Tensor
    """A float64 number: what was known before."""
    number: Tensor
    """What arrived on the way back."""


Scale = float | Tensor | Arrived
"""What a gradient is multiplied with; a tensor is a float64 number on a GPU, not waited for."""


class RowBatch(NamedTuple):
    """Rows of scores with all that their losses depend on.

    A tuple, because a frozen dataclass takes a microsecond to make.
    """

    scores: Tensor
    """(rows, classes), in a float type."""
    target: Tensor
    """(rows,) int64, or (rows, classes) in the type of the arithmetic."""
    factor: Tensor | None
    """(rows,) sample weights in the type of the arithmetic, or None."""
    options: Mapping[str, Any]
    """The options of the loss, settled."""


class Rows(Protocol):
    """The formula of a row loss."""

    takes_soft: bool
    """Whether a target may be (rows, classes) in a float type, instead of classes."""

    on_gpu: bool
    """Whether `kernel` runs on a GPU too."""

    bounds: Mapping[str, Bound]
    """Of the options: option -> (test, the bound in words)."""

    def settle(
        self, scores: Tensor, values: Mapping[str, Any], checked: bool = True
    ) -> Mapping[str, Any]:
        """Return the options in the form that the others want, or raise.

        Their numbers on a device are looked at only if ``checked``.
        """

    def check_target(self, batch: RowBatch) -> None:
        """Raise for the first target that the loss is not defined for."""

    def amount(self, batch: RowBatch) -> Tensor:
        """Return what the mean divides by; may be differentiated, and looks at no value."""

    def reference(self, batch: RowBatch) -> Tensor:
        """Return the loss of each row, times its factor."""

    def kernel(self, batch: RowBatch, scale: Scale, gradient: Tensor | None) -> Tensor:
        """Return the same by a kernel; fill the gradient, times ``scale``, if it is given."""


class SmallRows(Rows, Protocol):
    """Rows with a kernel that serves a small batch by one call."""

    small: int
    """Below how many scores it does."""

    def small_batch(
        self, batch: RowBatch, divisor: float, gradient: Tensor | None
    ) -> tuple[bool, float, float]:
        """Return whether a class is out of range, the losses' sum and what scales the gradient.

        Target checked, sum and gradient by one call of a kernel; integer targets only.
        """


def weights_total(batch: RowBatch) -> Tensor:
    """Return the sum of the sample weights, or how many rows there are where none has a weight."""
    target, factor = batch.target, batch.factor
    if factor is None:
        # Filled in there: a copy of the host's number would be waited for.
        return torch.full((), float(len(target)), dtype=torch.float64, device=target.device)
    return factor.sum(dtype=torch.float64)
