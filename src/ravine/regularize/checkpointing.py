"""Dropout under ``torch.utils.checkpoint``: the second forward draws the masks of the first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ravine.regularize import dropout


def checkpoint_contexts(
    model: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the two contexts that ``torch.utils.checkpoint`` runs its two forward passes in.

    The first remembers the counter of every `Dropout` of ``model``; the second sets the counters
    to what they were, so that the same masks are drawn, and back afterwards.

    Args:
        model: the checkpointed module, or any that contains it.

    Example:
        >>> from torch.utils.checkpoint import checkpoint
        >>> block = nn.Sequential(nn.Linear(3, 3), dropout.Dropout(0.5, seed=0), nn.Tanh())
        >>> x = torch.ones(2, 3, requires_grad=True)
        >>> y = checkpoint(block, x, use_reentrant=False,
        ...                context_fn=lambda: checkpoint_contexts(block))
        >>> y.sum().backward()

    Differs from torch, whose checkpoint stores and restores the state of its global generator.
    """
    layers = [module for module in model.modules() if isinstance(module, dropout.Dropout)]
    remembered: list[Tensor] = []
    return _first(layers, remembered), _again(layers, remembered)


@contextlib.contextmanager
def _first(layers: list[dropout.Dropout], remembered: list[Tensor]) -> Iterator[None]:
    remembered[:] = [layer.stream.detach().clone() for layer in layers]
    yield


@contextlib.contextmanager
def _again(layers: list[dropout.Dropout], remembered: list[Tensor]) -> Iterator[None]:
    current = [layer.stream.detach().clone() for layer in layers]
    _set(layers, remembered)
    dropout._recomputing.append(layers)
    try:
        yield
    finally:
        dropout._recomputing.pop()
        _set(layers, current)


@torch.no_grad()
def _set(layers: list[dropout.Dropout], streams: list[Tensor]) -> None:
    for layer, stream in zip(layers, streams, strict=True):
        layer.stream.copy_(stream)
