"""What the output can be, whatever the weights. Cost: a handful of forward passes of 64 rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence

Range = Literal["softmax", "sigmoid", "tanh", "relu", "log-softmax", "constant", "free"]


@dataclass(frozen=True)
class Head:
    """The output of the model.

    Attributes:
        range: what bounds it, told by its values under weights of every size.
        width: the size of its last dimension.
        least, most: the extremes seen.
    """

    range: Range
    width: int
    least: float
    most: float


def head(evidence: Evidence) -> Head:
    """Look at outputs while the last weights are scaled up and redrawn."""
    fresh = evidence.fresh()
    inputs = evidence.sample[0][:64]
    model = fresh.model.eval()
    weights = [p for p in model.parameters() if p.ndim > 1]
    if not weights:  # no layer whose weights could be redrawn
        return Head("free", 0, float("nan"), float("nan"))
    generator = torch.Generator().manual_seed(0)
    outputs: list[Tensor] = []
    with torch.no_grad():
        outputs.append(model(inputs))
        # Only the last weights matter to what the head lets through.
        for scale in (1.0, -1.0, 10.0, -10.0, 100.0, -100.0):
            for weight in weights[-1:]:
                spread = 1 / max(weight[0].numel(), 1) ** 0.5
                generator.manual_seed(0)  # both signs of the same weights
                drawn = torch.randn(weight.shape, generator=generator).to(weight)
                weight.copy_(scale * spread * drawn)
            for bias in [p for p in model.parameters() if p.ndim == 1][-1:]:
                bias.copy_(scale * torch.randn(bias.shape, generator=generator).to(bias))
            outputs.append(model(inputs))
    seen = torch.stack([o.reshape(-1, o.shape[-1]) if o.ndim > 1 else o[:, None] for o in outputs])
    seen = seen[torch.isfinite(seen).all(-1).all(-1)]
    if not len(seen):
        return Head("free", 0, float("nan"), float("nan"))
    return Head(_range(seen), seen.shape[-1], float(seen.min()), float(seen.max()))


def _range(seen: Tensor) -> Range:
    least, most, width = float(seen.min()), float(seen.max()), seen.shape[-1]
    if most - least < 1e-6:
        return "constant"
    if least >= 0 and width > 1 and bool(((seen.sum(-1) - 1).abs() < 1e-4).all()):
        return "softmax"
    if most <= 1e-6 and width > 1:
        sums = seen.double().exp().sum(-1)
        if bool(((sums - 1).abs() < 1e-4).all()):
            return "log-softmax"
    if least >= 0:
        if most > 1:
            return "relu"
        return "sigmoid" if most > 0.8 else "free"  # far from any bound nothing can be said
    return "tanh" if least >= -1 and most <= 1 and max(-least, most) > 0.8 else "free"


def last_activation(model: nn.Module) -> str:
    """Return the name of the last module, for words; "" where it does not tell."""
    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    return f"{leaves[-1][0]} ({type(leaves[-1][1]).__name__})" if leaves else ""
