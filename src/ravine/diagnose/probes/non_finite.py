"""Which module made the first number that is not finite. Cost: the run up to that step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import run
from ravine.diagnose.program import Fresh
from ravine.diagnose.replay import replay

Way = Literal["inputs", "weight", "forward", "loss", "backward"]


@dataclass(frozen=True)
class NonFinite:
    """Where it began.

    Attributes:
        step: the first step with a loss or gradient that is not finite.
        way: in the data, in a weight before the step, in the output of a module whose inputs were
            finite, in the loss of a finite output, or in a gradient.
        module: the module's name, and for a weight the weight's; "" for data and loss.
        kind: the class of the module, or "".
    """

    step: int
    way: Way
    module: str
    kind: str


class _Stop(Exception):  # noqa: N818
    """The step was seen."""


def non_finite(evidence: Evidence) -> NonFinite | None:
    """Repeat the run with hooks on the step that went wrong; None where none did."""
    step = evidence.probe(run).bad_step
    if step is None:
        return None
    fresh = evidence.fresh()
    seen = _Hooks(fresh.model)

    def observe(fresh: Fresh, at: int, loss: Tensor) -> None:
        if at == step - 1:
            seen.place()
        if at == step:
            seen.after(loss)
            raise _Stop

    if step == 1:
        seen.place()
    with contextlib.suppress(_Stop):
        replay(fresh, observe, deadline=evidence.deadline, looks=1)
    if seen.found is None:  # not reached in time, or gone without the hooks
        return NonFinite(step, "loss", "", "")
    way, module = seen.found
    owner = dict(fresh.model.named_modules()).get(module)
    return NonFinite(step, way, module, type(owner).__name__ if owner is not None else "")


class _Hooks:
    """Keeps the first thing that was not finite, in the order in which modules finish."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.found: tuple[Way, str] | None = None
        self._bad_gradient: str | None = None

    def place(self) -> None:
        for name, module in self.model.named_modules():
            module.register_forward_pre_hook(self._before(name))
            module.register_forward_hook(self._after(name))

    def after(self, loss: Tensor) -> None:
        if self.found is None and not bool(torch.isfinite(loss.detach())):
            self.found = "loss", ""
        if self.found is None and self._bad_gradient is not None:
            self.found = "backward", self._bad_gradient
        if self.found is None:
            for name, weight in self.model.named_parameters():
                if weight.grad is not None and not bool(torch.isfinite(weight.grad).all()):
                    self.found = "backward", name.rpartition(".")[0]
                    return

    def _before(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name == "" and self.found is None:
                if not _all_finite(args):
                    self.found = "inputs", ""
                for weight, value in module.named_parameters():
                    if self.found is None and not bool(torch.isfinite(value.detach()).all()):
                        self.found = "weight", weight
            for tensor in _tensors(args):
                if tensor.requires_grad and torch.is_grad_enabled():
                    tensor.register_hook(self._gradient(name))  # type: ignore[no-untyped-call]

        return hook

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self.found is None and _all_finite(args) and not _all_finite(output):
                self.found = "forward", name

        return hook

    def _gradient(self, name: str) -> Any:
        # Gradients arrive from the last module to the first: the first bad one at a module's input
        # was made by that module, because the gradient at its output was finite.
        def hook(gradient: Tensor) -> None:
            if self._bad_gradient is None and not bool(torch.isfinite(gradient).all()):
                self._bad_gradient = name

        return hook


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)


def _all_finite(value: Any) -> bool:
    return all(
        bool(torch.isfinite(t.detach()).all()) for t in _tensors(value) if t.is_floating_point()
    )
