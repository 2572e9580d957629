"""Where dropout and penalties act. Cost: one forward pass of two rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ravine.diagnose.evidence import Evidence
from ravine.regularize import Dropout

PENALTIES = ("weight_decay", "l2", "l1")


@dataclass(frozen=True)
class Held:
    """What holds a model back.

    Attributes:
        dropout: the largest probability of a dropout in the model; 0 without.
        after_the_last: names of dropouts that act on the output: no layer with weights comes after.
        penalty: the largest weight decay, l2 or l1 of the optimizer.
        which: its name.
    """

    dropout: float
    after_the_last: tuple[str, ...]
    penalty: float
    which: str


def held(evidence: Evidence) -> Held:
    """Run two rows through the model and write down in which order its layers act."""
    fresh = evidence.fresh()
    order: list[tuple[str, nn.Module]] = []
    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: order.append((name, m)))
        for name, module in fresh.model.named_modules()
        if not list(module.children())
    ]
    fresh.model.eval()
    with torch.no_grad():
        fresh.model(evidence.sample[0][:2])
    for hook in hooks:
        hook.remove()
    weighted = [k for k, (_, m) in enumerate(order) if list(m.parameters(recurse=False))]
    last = weighted[-1] if weighted else len(order)
    options = [
        (float(group.get(name) or 0), name)
        for group in fresh.optimizer.param_groups
        for name in PENALTIES
    ]
    most, which = max(options, default=(0.0, ""))
    return Held(
        dropout=max((dropout_of(m) for m in fresh.model.modules()), default=0.0),
        after_the_last=tuple(name for name, m in order[last + 1 :] if dropout_of(m) > 0),
        penalty=most,
        which=which,
    )


def dropout_of(module: nn.Module) -> float:
    """Return the probability with which a module drops, 0 if it is no dropout."""
    drops = isinstance(module, (nn.modules.dropout._DropoutNd, Dropout))
    own: Any = module.p if drops else getattr(module, "dropout", 0.0)
    return float(own) if isinstance(own, (int, float)) else 0.0
