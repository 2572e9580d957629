"""Whether the model is affine up to its last layer. Cost: three forward passes of 64 rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.run import layers_of

ROWS = 64


@dataclass(frozen=True)
class Affine:
    """Whether layers do more together than one of them could.

    Attributes:
        layers: how many layers with weights the forward pass goes through.
        error: how far the last layer's output of mixed rows is from the mixture of its outputs, as
            a share of their deviation; NaN where rows cannot be mixed.
    """

    layers: int
    error: float

    @property
    def affine(self) -> bool:
        """Whether the error is that of rounding."""
        return self.error < 1e-4


def affine(evidence: Evidence) -> Affine:
    """Compare the last layer's output for mixtures of rows with mixtures of its outputs.

    In evaluation mode: dropout is off and a normalisation by batch is affine.
    """
    inputs = evidence.sample[0]
    model = evidence.fresh().model.eval()
    one, other = inputs[:ROWS], inputs[:ROWS].flip(0)
    if not inputs.is_floating_point() or len(one) < 2:
        return Affine(len(_outputs(model, one)), float("nan"))
    share = torch.rand(len(one), generator=torch.Generator().manual_seed(0))
    share = share.to(one).view(-1, *[1] * (one.ndim - 1))
    a, b = _outputs(model, one), _outputs(model, other)
    mixed = _outputs(model, share * one + (1 - share) * other)
    if not a:
        return Affine(0, float("nan"))
    last = list(a)[-1]
    part = share.view(-1, *[1] * (a[last].ndim - 1)).double()
    wanted = part * a[last] + (1 - part) * b[last]
    spread = a[last].std(0, correction=0).mean()
    error = (mixed[last] - wanted).abs().mean() / spread
    return Affine(len(a), float(error) if spread > 0 else float("nan"))


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Return the output of each layer with weights, in the order of the forward pass."""
    found: dict[str, Tensor] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.pop(name, None)
                found[name] = output.double()

        return hook

    for name, module in model.named_modules():
        if name in layers_of(model):
            handles.append(module.register_forward_hook(keep(name)))
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
