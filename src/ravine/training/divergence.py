"""Numbers of a run that are not finite: found, and told."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ravine.errors import NonFiniteError


def is_finite(tensor: Tensor) -> bool:
    """Return whether every number of a tensor is finite."""
    tensor = tensor.detach()
    # A finite sum has finite terms only, and is quick; a sum may overflow all the same.
    if not tensor.is_complex() and math.isfinite(tensor.sum().item()):
        return True
    return bool(torch.isfinite(tensor).all())


def not_finite(what: str, model: nn.Module, lr: float, step: int, epoch: int) -> NonFiniteError:
    """Return the error of a run that diverged: which weights, at which lr, and what to try."""
    bad = [name for name, p in model.named_parameters() if not is_finite(p)]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    weights = f"not finite: {', '.join(bad[:3])}{more}" if bad else "the weights are finite"
    return NonFiniteError(
        what,
        where=f"step {step}, epoch {epoch}",
        got=f"lr {lr:g}; {weights}",
        expected="a finite loss and finite weights",
        do=f"lower lr (try {lr / 10:g}), clip the gradient (clip_norm=1), warm up "
        "(lr=warmup(100) >> ...), or look for extreme values in the data",
    )
