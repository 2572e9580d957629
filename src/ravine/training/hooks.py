"""A person's own code inside a run: after every step, after every epoch, at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError, ArgumentTypeError, HookError
from ravine.training.devices import Team
from ravine.training.loop import Loop
from ravine.training.record import Record

__all__ = ["EpochState", "Hooks", "OnEnd", "OnEpoch", "OnStep", "StepState"]


@dataclass(frozen=True, eq=False)
class _State:
    """What every hook of a run under way is given."""

    _loop: Loop = field(repr=False)
    _hooks: Hooks = field(repr=False)

    @property
    def model(self) -> nn.Module:
        """The model that is trained, in the mode that training left it in; leave it in that."""
        return self._loop.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer; what is changed in its groups counts from the next step on."""
        return self._loop.optimizer

    @property
    def step(self) -> int:
        """Updates made so far, over the whole run."""
        return self._loop.step

    @property
    def lr(self) -> float:
        """The learning rate of the first group, as the last step used it."""
        return self._loop.lr

    def gradient_norm(self) -> float:
        """Return the Euclidean norm of the gradient of the last step, before clipping.

        With sharded weights this is a message: call it in all processes or in none.
        """
        return self._loop.gradient_norm()

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Have the weights in place, inside a ``with``, that validation looks at.

        Other than those that are trained where the optimizer averages; changes made to them inside
        are lost.
        """
        return self._loop.averaged()

    def stop(self, reason: str) -> None:
        """End the run here, with its validation and its files, as "stopped early".

        Of several processes one is enough.

        Args:
            reason: why, in words; becomes the record's message.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise ArgumentTypeError(
                "a run is stopped with a reason",
                got=repr(reason),
                expected='words, such as "the loss is below 0.1"',
            )
        self._hooks.reason = reason


@dataclass(frozen=True, eq=False)
class StepState(_State):
    """What ``on_step`` is given.

    All of it is of the whole batch, also where the batch is taken in several passes (``accumulate``)
    or shared by several processes.

    Attributes:
        inputs, targets: the batch of this step.
        loss_tensor: its loss, on the device; reading it as a number waits for a GPU.
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    loss_tensor: Tensor = field(repr=False)

    @property
    def epoch(self) -> int:
        """The epoch that this step belongs to, from 1."""
        return self._loop.epoch + 1

    @property
    def loss(self) -> float:
        """The training loss of this step's batch."""
        return float(self.loss_tensor)


@dataclass(frozen=True, eq=False)
class EpochState(_State):
    """What ``on_epoch`` is given, beside the row of the history."""

    _row: dict[str, Any] = field(repr=False)

    @property
    def epoch(self) -> int:
        """The epoch that just ended, from 1."""
        return self._loop.epoch

    def log(self, name: str, value: float | Tensor) -> None:
        """Add a number to the row: it is kept in the history, drawn on the page and in TensorBoard.

        Args:
            name: not in the row yet; ``"valid/f1"`` shares the chart of the other "f1".
            value: a number, or a tensor or array of one element; NaN and infinity are taken.

        Raises:
            ArgumentError: the row has the name. ArgumentTypeError: the value is no number.
        """
        if name in self._row:
            raise ArgumentError(
                "the row of the history has this name already",
                got=f"{name!r} = {self._row[name]}",
                do="take another name",
            )
        try:
            number = value.item() if isinstance(value, Tensor) else float(value)
            if not isinstance(name, str) or isinstance(number, complex):
                raise TypeError
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentTypeError(
                "only a name and a number can be logged",
                got=f"{name!r}: {type(value).__name__}",
                expected='such as log("valid/f1", 0.93)',
            ) from None
        self._row[name] = float(number)


OnStep = Callable[[StepState], object]
OnEpoch = Callable[[Mapping[str, Any], EpochState], object]
OnEnd = Callable[[Record], object]


class Hooks:
    """Calls a person's functions, and says whose error it was where one of them fails.

    Args:
        on_step, on_epoch, on_end: the functions, or None.

    Attributes:
        reason: why a hook asked to stop, or None.
        team: the processes of the run, which stop together.

    Raises:
        ArgumentTypeError: one of them cannot be called.
    """

    def __init__(
        self,
        on_step: OnStep | None = None,
        on_epoch: OnEpoch | None = None,
        on_end: OnEnd | None = None,
    ) -> None:
        self.reason: str | None = None
        self.team = Team()
        self._on_step, self._on_epoch, self._on_end = on_step, on_epoch, on_end
        for name, hook in (("on_step", on_step), ("on_epoch", on_epoch), ("on_end", on_end)):
            if hook is not None and not callable(hook):
                raise ArgumentTypeError(
                    f"{name} is not a function", got=type(hook).__name__, expected="a function"
                )

    @property
    def after_step(self) -> Callable[[Loop, Tensor, Tensor, Tensor], bool] | None:
        """What the loop calls after every step, or None where there is nothing to call."""
        return None if self._on_step is None else self._step

    def after_epoch(self, row: dict[str, Any], loop: Loop) -> bool:
        """Call ``on_epoch``, which may add to the row; return whether the run is to stop."""
        if self._on_epoch is not None:
            state = EpochState(loop, self, row)
            _call("on_epoch", self._on_epoch, loop, MappingProxyType(row), state)
        return self._stops(self._on_epoch)

    def at_end(self, record: Record) -> None:
        """Call ``on_end``."""
        if self._on_end is not None:
            _call("on_end", self._on_end, None, record)

    def _step(self, loop: Loop, loss: Tensor, inputs: Tensor, targets: Tensor) -> bool:
        assert self._on_step is not None
        state = StepState(loop, self, inputs, targets, loss.detach())
        _call("on_step", self._on_step, loop, state)
        return self._stops(self._on_step)

    def _stops(self, called: object) -> bool:
        """Tell whether a hook that was called, in whichever process, asked to stop."""
        # Without asking, the others would wait for ever for the one that went on to its validation.
        if called is not None and self.team.world > 1 and self.team.sums([bool(self.reason)])[0]:
            self.reason = self.reason or "a hook of another process stopped the run"
        return self.reason is not None


def _call(name: str, hook: Callable[..., object], loop: Loop | None, *arguments: object) -> None:
    try:
        hook(*arguments)
    except Exception as error:
        raise HookError(
            f"{name} ({_place(hook, error)}) raised {type(error).__name__}: {error}",
            where="" if loop is None else f"after step {loop.step}",
            do="mend the function; what the run reached is kept",
        ) from error


def _place(hook: Callable[..., object], error: Exception) -> str:
    """Say which function failed, and in which of its lines."""
    called = getattr(hook, "__qualname__", type(hook).__qualname__)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is None:  # it was not even entered: it takes other arguments
        return str(called)
    return f"{called}, line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name}"
