"""How much of the gradient reaches the first symbol of a sequence. Cost: one step of 64 rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence

ROWS = 64


def through_time(evidence: Evidence) -> dict[str, float]:
    """Return, for each recurrent module, its gradient at the first place over that at the last.

    Of the norms of the gradient by the module's inputs; a module whose gradient is 0 is left out.
    """
    fresh = evidence.fresh()
    inputs, targets = (part[:ROWS] for part in evidence.sample)
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if not isinstance(args[0], Tensor) or args[0].ndim != 3:
                return args
            first = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            first.retain_grad()
            kept[name] = first
            return (first, *args[1:])

        return hook

    modules = {n: m for n, m in fresh.model.named_modules() if isinstance(m, nn.RNNBase)}
    for name, module in modules.items():
        module.register_forward_pre_hook(keep(name))
    if not modules:
        return {}
    loss: Any = fresh.loss(fresh.model(inputs), targets)
    loss.backward()
    found = {}
    for name, tensor in kept.items():
        if tensor.grad is None:
            continue
        places = tensor.grad.double().movedim(1 if modules[name].batch_first else 0, 0)
        norms = torch.linalg.vector_norm(places.flatten(1), dim=1)
        if norms[-1] > 0:
            found[name] = float(norms[0] / norms[-1])
    return found
