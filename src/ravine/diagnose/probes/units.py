"""What activations let through: dead and saturated units, and the size of the signal by layer.

Cost: two forward passes of 512 rows, before the first step and at the end of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import at_end, layers_of

ROWS = 512

FLAT = 0.027
"""A slope below this share of the steepest is flat: a sigmoid beyond |5|, a tanh beyond |2.5|."""

_RELU = "relu", lambda y: (y > 0).to(y.dtype)
_SIGMOID = "sigmoid", lambda y: 4 * y * (1 - y)
_TANH = "tanh", lambda y: 1 - y * y
_KINDS: dict[Any, tuple[str, Callable[[Tensor], Tensor]]] = {
    functional.relu: _RELU,
    torch.relu: _RELU,
    torch.relu_: _RELU,
    Tensor.relu: _RELU,
    Tensor.relu_: _RELU,
    functional.sigmoid: _SIGMOID,
    torch.sigmoid: _SIGMOID,
    Tensor.sigmoid: _SIGMOID,
    functional.tanh: _TANH,
    torch.tanh: _TANH,
    Tensor.tanh: _TANH,
}


@dataclass(frozen=True)
class Activation:
    """One use of an activation.

    Attributes:
        module: the name of the module inside which it was used.
        kind: "relu", "sigmoid" or "tanh".
        units: how many: channels of images, else the last dimension.
        dead: the share of units that let no gradient through for any row.
        flat: the share of all values whose slope is below 2.7 % of the steepest.
        head: whether its values are the output of the model.
    """

    module: str
    kind: str
    units: int
    dead: float
    flat: float
    head: bool


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Attributes:
        activations: in their order.
        signal: the deviation over rows of each layer's output, in the order of the forward pass.
        output: the deviation over rows of the model's output.
    """

    activations: tuple[Activation, ...]
    signal: dict[str, float]
    output: float

    def hidden(self, *kinds: str) -> list[Activation]:
        """Return the activations of these kinds that are not the model's output."""
        return [a for a in self.activations if a.kind in kinds and not a.head]


@dataclass(frozen=True)
class Units:
    """Before the first step and after the last."""

    first: Pass
    last: Pass


def units(evidence: Evidence) -> Units:
    """Look at a pass over the first rows, before and after the run."""
    inputs = evidence.sample[0][:ROWS]
    fresh = evidence.fresh()
    # Running statistics mean nothing before the first step: as in training, without dropout.
    fresh.model.train()
    for module in fresh.model.modules():
        if "dropout" in type(module).__name__.lower():
            module.eval()
    first = look(fresh.model, inputs)
    return Units(first, look(at_end(evidence).model.eval(), inputs))


class _Seen(TorchFunctionMode):
    """Keeps what activations return, whether a module or a function calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = [""]
        self.kept: list[tuple[str, str, Callable[[Tensor], Tensor], Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _KINDS and isinstance(result, Tensor) and result.ndim > 1:
            self.kept.append((self.inside[-1], *_KINDS[func], result.detach()))
        return result


@torch.no_grad()
def look(model: nn.Module, inputs: Tensor) -> Pass:
    """Return what a forward pass of a model shows; its hooks are taken off again."""
    seen = _Seen()
    signal: dict[str, float] = {}
    handles = []

    def enters(name: str) -> Callable[..., None]:
        return lambda module, args: seen.inside.append(name)

    def leaves(name: str, layer: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen.inside.pop()
            output = output[0] if isinstance(output, tuple) else output
            if layer and isinstance(output, Tensor) and name not in signal:
                signal[name] = _spread(output)

        return hook

    layers = layers_of(model)
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enters(name)))
        handles.append(module.register_forward_hook(leaves(name, name in layers)))
    try:
        with seen:
            output = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return Pass(
        tuple(_activation(*kept, output=output) for kept in seen.kept), signal, _spread(output)
    )


def _activation(
    module: str, kind: str, slope: Callable[[Tensor], Tensor], values: Tensor, output: Tensor
) -> Activation:
    dimension = 1 if values.ndim > 3 else values.ndim - 1
    slopes = slope(values).movedim(dimension, 0).flatten(1)
    flat = slopes < FLAT
    return Activation(
        module=module,
        kind=kind,
        units=len(slopes),
        dead=float(flat.all(1).double().mean()),
        flat=float(flat.double().mean()),
        head=values.data_ptr() == output.data_ptr(),
    )


def _spread(values: Tensor) -> float:
    if not values.is_floating_point() or len(values) < 2:
        return math.nan
    return float(values.double().var(0, correction=0).mean().sqrt())
