"""What the loop asks of batches, whatever they are made from."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from torch import Tensor

from ravine.errors import ArgumentError, TaskError

Batch = tuple[Tensor, Tensor]


class Batches(Protocol):
    """The batches of a part of the data, epoch after epoch.

    Attributes:
        rows: rows of an epoch, None if unknown.
        steps: batches of an epoch, None if unknown.
        size: rows of a batch; the last one of an epoch may be smaller.
    """

    rows: int | None
    steps: int | None
    size: int

    def epoch(self, number: int, skip: int = 0) -> Generator[Batch]:
        """Return the batches of an epoch without the first ``skip``.

        Order and content are decided by the seed, the epoch's number and the batch's place alone:
        ``epoch(n, skip=k)`` gives the bits of ``epoch(n)`` from batch k on, in any process. What
        has to be drawn and dropped for that is drawn before this returns. The global random
        states of torch, Python and NumPy are as they were whenever the caller has control. A caller
        that does not take all batches closes the generator: a thread may be reading ahead.

        Args:
            number: of the epoch, from 1.
            skip: batches to leave out at the beginning, at most ``steps``.

        Raises:
            ArgumentError: the epoch has fewer batches than ``skip``.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what seed, number and skip do not decide: nothing, so far."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""


class Stateless:
    """Batches that seed, number and skip decide."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing; a state that holds something belongs to other data."""
        if state:
            raise ArgumentError(
                "the saved position belongs to data of another kind",
                where=type(self).__name__,
                got=", ".join(state),
                expected="an empty state: the epoch and the batch are the whole position",
                do="resume with the data that the run began with",
            )


def too_few(number: int, skip: int, found: int) -> ArgumentError:
    """Build the error for an epoch that ends before the place where it is to go on."""
    return ArgumentError(
        "the epoch ends before the batch at which it is to go on",
        where=f"epoch {number} of the data",
        got=f"{found} batches",
        expected=f"{skip} batches at least: so many were trained on before",
        do="resume with the data and batch size that the run began with",
    )


def no_batch(number: int) -> TaskError:
    """Build the error for an epoch without a batch."""
    return TaskError(
        "the training data gave no batch",
        where=f"epoch {number}",
        expected="one batch at least in every epoch",
        do="look at drop_last and the sampler; an iterator is used up after one epoch",
    )
