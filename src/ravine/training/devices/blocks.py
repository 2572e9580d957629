"""The blocks that a model is a chain of: what is sharded together, and computed again together."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the members of the model's outermost lists and sequences that hold weights.

    >>> layers = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)]
    >>> blocks(nn.Sequential(*layers)) == [layers[0], layers[2]]
    True
    """
    return list(_found(model))


def _found(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if not any(True for _ in child.parameters()):
            continue
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            yield child
        else:
            yield from _found(child)
