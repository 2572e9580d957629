"""One update: the gradient of a batch, then the optimizer's step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentTypeError, ShapeError
from ravine.optim import Optimizer
from ravine.regularize import Part


@dataclass
class Step:
    """What an update is made of.

    Attributes:
        model, loss, optimizer: loss(model(inputs), targets) is made smaller by the optimizer. One
            with a ``zero_grad`` of its own decides what becomes of the last gradient.
        ascending: what moves the weights to where the gradient is taken that counts, or None.
    """

    model: nn.Module
    loss: Any
    optimizer: torch.optim.Optimizer
    ascending: Part | None = None
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
        loss = self._backward(inputs, targets)
        if self.ascending is not None:
            with self.ascending.second_gradient(self._weights):
                self._backward(inputs, targets)
        return loss

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        loss = self.loss(self.model(inputs), targets)
        if not self._checked:
            _check_loss(loss)
            self._checked = True
        if self._clears:
            self.optimizer.zero_grad()
        else:  # the same, without torch's 7 us
            for weight in self._weights:
                weight.grad = None
        loss.backward()
        return loss  # type: ignore[no-any-return]

    def update(self) -> None:
        """Let the optimizer take its step."""
        self.optimizer.step()


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
