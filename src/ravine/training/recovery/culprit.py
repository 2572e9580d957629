"""Which module or weight is the first that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ravine.training.batches import Batch
from ravine.training.finite import gradients, is_finite

if TYPE_CHECKING:
    from ravine.training.loop import Loop

__all__ = ["culprit"]


def culprit(loop: Loop, batch: Batch) -> str | None:
    """Make a step of a batch, and say what became not finite first; None if nothing did.

    The loop is left as the step leaves it.
    """
    inputs, targets = batch
    if not is_finite_part(inputs):
        return "first not finite: the inputs of the batch"
    outputs: list[str] = []
    slopes: list[str] = []
    with _watched(loop.model, outputs, slopes):
        loss = loop.current_step.gradient(inputs, targets).item()
    if not math.isfinite(loss):
        outputs.append("the loss, of an output that is finite")
    found = outputs + (slopes if gradients(loop) else [])
    if found:
        return f"first not finite: {found[0]}"
    loop.current_step.update()
    for name, weight in loop.model.named_parameters():
        if not is_finite(weight):
            return f"first not finite: weight {name!r} after the step, of a finite gradient"
    return None


def is_finite_part(value: Any) -> bool:
    """Return whether all tensors of floats in a nest of tuples, lists and dictionaries are finite."""
    if isinstance(value, Tensor):
        if not (value.is_floating_point() or value.is_complex()):
            return True
        return is_finite(value)
    if isinstance(value, dict):
        return all(map(is_finite_part, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite_part, value))
    return True


@contextmanager
def _watched(model: nn.Module, outputs: list[str], slopes: list[str]) -> Iterator[None]:
    """Add a text for every module and gradient that is not finite, in the order of computing."""

    def output_hook(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if not is_finite_part(output) and is_finite_part((args, kwargs)):
                called = f"module {name!r}" if name else "the model"
                outputs.append(
                    f"the output of {called} ({type(module).__name__}), of inputs that are finite"
                )

        return hook

    def gradient_hook(name: str) -> Any:
        def hook(weight: Tensor) -> None:
            if weight.grad is not None and not is_finite(weight.grad):
                slopes.append(f"the gradient of weight {name!r}, of a loss that is finite")

        return hook

    handles = [
        module.register_forward_hook(output_hook(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    handles += [
        weight.register_post_accumulate_grad_hook(gradient_hook(name))  # type: ignore[no-untyped-call]
        for name, weight in model.named_parameters()
        if weight.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
