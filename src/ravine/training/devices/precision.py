"""In which types a step computes: the weights' own, or fewer bits where that is safe."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

NAMES = ("float32", "bfloat16", "float16")

_NOTHING = contextlib.nullcontext()
_run_backward = torch.autograd.Variable._execution_engine.run_backward


class Precision:
    """Everything in the types of weights and data.

    Attributes:
        scale: what the gradients on the weights are multiplied by.
        skipped: steps that were left out because a gradient was not finite.
    """

    def __init__(self) -> None:
        self.scale = 1.0
        self.skipped = 0

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass and its loss."""
        return _NOTHING

    def output(self, output: Any) -> Any:
        """Return a model's output as the loss takes it."""
        return output

    def backward(self, loss: Tensor) -> None:
        """Add the gradients to those on the weights."""
        if type(loss) is Tensor and loss.is_cpu and loss.ndim == 0 and loss.is_floating_point():
            # What `loss.backward()` comes to. Its way there (for nested tensors, edges, threads of
            # other devices) took 22 us of the 490 of a step of 64 digits.
            _run_backward(
                (loss,), (torch.ones_like(loss),), False, False, (),
                allow_unreachable=True, accumulate_grad=True,
            )  # fmt: skip
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer take its step."""
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the next steps: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""


class Autocast(Precision):
    """Matrix products and convolutions in fewer bits (``torch.autocast``); weights stay as they are.

    A loss takes the output in float32, as torch's own losses do under autocast.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._device = device.type
        self._dtype = dtype

    def forward(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device, self._dtype)

    def output(self, output: Any) -> Any:
        if isinstance(output, Tensor) and output.dtype in (torch.bfloat16, torch.float16):
            return output.float()
        return output


class Scaled(Autocast):
    """float16, whose small gradients would be zero: the loss is multiplied by a scale.

    A step whose gradients are not finite is left out and the scale halved
    (``torch.amp.GradScaler``); Ravine's optimizers take the scale out in the same pass.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, torch.float16)
        self._scaler = torch.amp.GradScaler(device.type)

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scale = self._scaler.get_scale()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.step(optimizer)
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            self.scale = 1.0  # the scaler has taken it out of the gradients themselves
        before = self._scaler.get_scale()
        self._scaler.update()
        self.skipped += self._scaler.get_scale() < before

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self._scaler.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]


def precision_of(name: str, device: torch.device) -> Precision:
    """Return the precision of a name.

    >>> type(precision_of("bfloat16", torch.device("cpu"))).__name__
    'Autocast'
    """
    if name == "float16":
        return Scaled(device)
    return Precision() if name == "float32" else Autocast(device, torch.bfloat16)
