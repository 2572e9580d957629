"""What every schedule is: an immutable function of the step, with a length and a written form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, SupportsFloat, SupportsIndex

from ravine.errors import ArgumentError
from ravine.schedules import checks


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """A learning rate as a function of the step: ``schedule(step) -> float``.

    Steps count from 0, the first update. A schedule of length n describes the steps 0 to n - 1
    and holds the value of its equation at t = n from there on. `a >> b` joins two schedules.
    `repr` is the expression that makes the schedule, which `ravine.expression.parse` reads.
    Schedules compare and hash by their arguments, can be pickled and copied, and drive any torch
    optimizer.

    A schedule of your own is a frozen dataclass with an `equation`. Its length is its field
    `steps`, where it has one:

        >>> from dataclasses import dataclass
        >>> from ravine.schedules import warmup
        >>> @dataclass(frozen=True, repr=False)
        ... class inverse_sqrt(Schedule):
        ...     lr: float
        ...     def equation(self, t: int) -> float:
        ...         return self.lr / (1 + t) ** 0.5
        >>> schedule = warmup(2) >> inverse_sqrt(0.1)
        >>> schedule
        warmup(2) >> inverse_sqrt(0.1)
        >>> [round(schedule(step), 4) for step in range(4)]
        [0.05, 0.1, 0.1, 0.0707]

    With a torch optimizer of lr 1, because `LambdaLR` multiplies by the optimizer's own lr:

        >>> import torch
        >>> from ravine.schedules import cosine
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(100, peak=0.1))
        >>> optimizer.param_groups[0]["lr"]
        0.1

    Differs from torch.optim.lr_scheduler, whose schedulers are objects that change the optimizer
    and count for themselves; like optax's and Keras's schedules, these are functions of the step,
    so there is nothing to save or to load in the right order.
    """

    @property
    def length(self) -> int | None:
        """The number of steps described, or None when there is no end."""
        steps: int | None = getattr(self, "steps", None)
        return steps

    @property
    def complete(self) -> bool:
        """Whether it can be called: False for a warmup with nothing on its right."""
        return True

    @abstractmethod
    def equation(self, t: int) -> float:
        """Return the learning rate at step t, where 0 <= t <= length."""

    def __call__(self, step: SupportsIndex) -> float:
        """Return the learning rate of a step.

        Args:
            step: a whole number from 0: int, NumPy integer or integer tensor of one element.

        Raises:
            ArgumentTypeError: the step is a float, a bool or otherwise not a whole number.
            ArgumentError: the step is negative, or the schedule ends in a warmup.
        """
        t = checks.step_index(step)
        length = self.length
        return self.equation(t if length is None else min(t, length))

    def __rshift__(self, following: Schedule | float) -> Schedule:
        """Join: the right schedule starts from its own step 0 when the left one has ended."""
        from ravine.schedules.joining import join  # joining is built on this class

        return join(self, following)

    def __rrshift__(self, preceding: float) -> Schedule:
        from ravine.schedules.joining import join

        return join(preceding, self)

    def observe(  # noqa: B027 - a pure schedule has nothing to do here
        self, value: SupportsFloat, *, step: SupportsIndex | None = None
    ) -> None:
        """Tell the schedule the value of a metric. Only `plateau` listens; others are pure.

        Args:
            value: the metric, such as the validation loss of an epoch.
            step: the step that comes next. A joined schedule then tells only the piece that is in
                charge of it, so that a plateau does not count what happened during the warmup.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what observations have changed: empty for a pure function of the step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ArgumentError: the state belongs to another schedule.
        """
        self._expect_state(state, ())

    def _expect_state(self, state: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        if set(state) != set(keys):
            raise ArgumentError(
                "this state belongs to another schedule",
                where=repr(self),
                got=_names(state),
                expected=_names(keys),
                do="load it into the schedule that it was taken from, or don't load it",
            )

    def __repr__(self) -> str:
        given = [field for field in fields(self) if field.init]
        written = [
            # Only the first argument can be recognised without its name: cosine(900, peak=0.001).
            repr(value) if field is given[0] else f"{field.name}={value!r}"
            for field in given
            if field.default is MISSING or getattr(self, field.name) != field.default
            for value in [getattr(self, field.name)]
        ]
        return f"{type(self).__name__}({', '.join(written)})"

    def _store(self, **values: Any) -> None:
        """Set fields of this frozen object: checked arguments at the start, and plateau's state."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _names(keys: Any) -> str:
    return ", ".join(map(str, keys)) or "an empty state"
