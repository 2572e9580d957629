"""Weights that are stepped together: by one kernel launch, or one by one with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ravine.engine.lean import Stored
from ravine.engine.program import Program
from ravine.errors import EquationError
from ravine.optim.sharding import Ranks
from ravine.optim.totals import Sweeps

Group = dict[str, Any]


class Stale(Exception):  # noqa: N818 (a signal, not a failure)
    """The weights or hyperparameters are not those that a bucket was made for."""


class Bucket(Protocol):
    """What an optimizer asks of a bucket, in this order, at every step."""

    members: Sequence[Member]

    numbers: Any
    """``steps``, the step count of each weight, and ``held``, numbers that are state, by name."""
    description: str
    reduces: bool
    """Whether a step needs sweeps."""
    ranks: Ranks
    """The processes over which the weights are divided."""

    def gather(self) -> None:
        """Take the gradients of this step; raise `Stale` if the bucket no longer fits."""

    def squared_norm(self) -> float:
        """Return the sum of squares of the gradients taken."""

    def count_nonfinite(self) -> int:
        """Return how many elements of the gradients taken are NaN or infinite."""

    def stepped(self) -> Sequence[int]:
        """Return which weights have a gradient in this step."""

    def sweeps(self, common: dict[str, float]) -> Sweeps:
        """Find the totals that the step needs; see `ravine.optim.totals`.

        ``common`` are the numbers of this step that are the same for all weights.
        """

    def run(self, common: dict[str, float]) -> None:
        """Step the weights whose gradients were taken."""

    def shared(self) -> Sequence[float]:
        """Return the numbers of the whole optimizer as the first weight stepped has left them."""


class Member:
    """A weight with its group, its state (by the program's variable names) and its numbers.

    Args:
        weight: the weight.
        group: its group.
        state: its state by the program's variable names.
        steps: the steps it has taken.
        numbers: its numbers that are state.
        index: its place among all weights of the optimizer.

    Of a sharded weight, ``state`` has the parts that are in this process.

    Attributes:
        forms: how the weight ("w") and each state lie in memory.
        scales: those of the states that are held as codes.
    """

    def __init__(
        self,
        weight: Tensor,
        group: Group,
        state: dict[str, Tensor],
        steps: float,
        numbers: dict[str, float],
        index: int,
    ) -> None:
        self.weight = weight
        self.group = group
        self.state = state
        self.steps = steps
        self.numbers = numbers
        self.index = index
        self.forms: dict[str, Stored] = {}
        self.scales: dict[str, Tensor] = {}


def needed_state(program: Program, group: Mapping[str, Any]) -> set[str]:
    """Return the state that a program needs for these hyperparameters."""
    try:
        return set(program.specialise(group).touched) - {"w", "g"}
    except EquationError:  # an equation that only the reference can run: keep all it names
        return (
            set(program.variables)
            - {"w"}
            - program.private
            - ({"average"} if group["average"] is None else set())
        )


def sums_model(program: Program, group: Mapping[str, Any]) -> bool:
    """Whether a step needs sums over all weights, besides the norm of the gradient."""
    try:
        sweeps = program.specialise(group).sweeps
    except EquationError:  # only the reference can run it, and knows on the way
        return program.reduces
    return any(total.of_model for sweep in sweeps for total in sweep.totals)
