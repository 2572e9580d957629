"""One update: the gradient of a batch, then the optimizer's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError
from ravine.optim import Optimizer
from ravine.regularize import Part
from ravine.training.devices import Devices
from ravine.watch import Watch


@dataclass
class Step:
    """What an update is made of.

    Attributes:
        model, loss, optimizer: loss(model(inputs), targets) is made smaller by the optimizer. One
            with a ``zero_grad`` of its own decides what becomes of the last gradient.
        devices: how that is computed.
        ascending: what moves the weights to where the gradient is taken that counts, or None.
        watch: looks at some of the steps and changes none, or None.
    """

    model: nn.Module
    loss: Any
    optimizer: torch.optim.Optimizer
    devices: Devices
    ascending: Part | None = None
    watch: Watch | None = None
    _weights: list[nn.Parameter] = field(default_factory=list)
    _checked: bool = False

    def __post_init__(self) -> None:
        clear = getattr(self.optimizer.zero_grad, "__func__", None)
        self._clears = clear not in (Optimizer.zero_grad, torch.optim.Optimizer.zero_grad)

    def begin_epoch(self) -> None:
        """Look up which weights are trained: walking the modules at every step costs 10 us."""
        self.model.train()
        self._weights = [p for p in self.model.parameters() if p.requires_grad]

    def gradient(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch; every weight's ``grad`` is its gradient then."""
        watch = self.watch if self.watch is not None and self.watch.due else None
        if watch is not None:
            watch.look()
        loss = self._backward(inputs, targets)
        if self.ascending is not None:
            with self.ascending.second_gradient(self._weights):
                self._backward(inputs, targets)
        if watch is not None:
            watch.leave_layers()
        return loss

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        loss = self._loss(inputs, targets)
        self._clear()
        self.devices.precision.backward(loss)
        return loss

    def _clear(self) -> None:
        if self._clears:
            self.optimizer.zero_grad()
        else:  # the same, without torch's 7 us
            for weight in self._weights:
                weight.grad = None

    def update(self) -> None:
        """Let the optimizer take its step."""
        precision, watch = self.devices.precision, self.watch
        if watch is not None and watch.looking:
            watch.before_update()
        before = precision.skipped
        precision.step(self.optimizer)
        if watch is not None:
            watch.after_update(precision.scale, left_out=precision.skipped > before)

    def gradient_norm(self) -> float:
        """Return the norm of the gradient over all weights."""
        return self.devices.layout.gradient_norm() / self.devices.precision.scale

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        devices = self.devices
        with devices.precision.forward():
            output = devices.precision.output(devices.layout.forward(inputs))
            loss = self.loss(output, targets)
        if not self._checked:
            _check_loss(loss)
            self._checked = True
        return loss  # type: ignore[no-any-return]


class StepInParts(Step):
    """A step whose batch is divided over processes, over passes, or both.

    The loss and the gradient are those of the whole batch: every part counts what its rows count
    in the mean (`ravine.training.devices.means`).
    """

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        devices = self.devices
        parts = devices.parts.own(inputs, targets, self.loss)
        self._clear()
        total = None
        for k, part in enumerate(parts, start=1):
            with devices.layout.syncing(k == len(parts)):
                if part.share:
                    loss = self._loss(part.inputs, part.targets) * part.share
                else:
                    loss = self._nothing(part.inputs)
                devices.precision.backward(loss * devices.layout.times)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return devices.team.sum(total)

    def _nothing(self, inputs: Tensor) -> Tensor:
        """Return zero with a graph: the other processes wait for this one's gradients."""
        with self.devices.precision.forward():
            output = self.devices.precision.output(self.devices.layout.forward(inputs))
        return _zero(output)


def make_step(
    model: nn.Module,
    loss: Any,
    optimizer: torch.optim.Optimizer,
    devices: Devices,
    parts: Sequence[Part] = (),
) -> Step:
    """Return the step of a model.

    Raises:
        ArgumentError: the optimizer steps in backward, and a batch has several parts; or a
            regulariser does not work on weights that are divided.
    """
    devices.check_parts(parts)
    ascending = next((part for part in parts if part.ascends), None)
    if devices.parts.whole:
        return Step(model, loss, optimizer, devices, ascending)
    if any(group.get("in_backward") for group in optimizer.param_groups):
        raise ArgumentError(
            "in_backward steps before the gradients of all parts of a batch are there",
            got=f"accumulate={devices.parts.passes}, processes: {devices.team.world}",
            do="leave in_backward out, or train in one process with accumulate=1",
        )
    return StepInParts(model, loss, optimizer, devices, ascending)


def _zero(output: Any) -> Tensor:
    """Return 0 times the first tensor of an output that has a graph."""
    if isinstance(output, Tensor):
        return output.sum() * 0.0
    values = output.values() if isinstance(output, dict) else output
    return _zero(
        next(value for value in values if isinstance(value, Tensor) and value.requires_grad)
    )


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor):
        raise ArgumentTypeError(
            "the loss function did not return a tensor",
            got=type(loss).__name__,
            expected="a tensor with one element",
        )
    if loss.ndim != 0:
        raise ShapeError(
            "the loss function did not return one number",
            got=f"shape {tuple(loss.shape)}",
            expected="shape ()",
            do="reduce it: reduction='mean' or .mean()",
        )
    if not loss.requires_grad:
        raise ArgumentTypeError(
            "the loss does not depend on any weight that is trained",
            got="a loss without a graph",
            do="look for .detach(), torch.no_grad() or requires_grad=False on every weight",
        )
