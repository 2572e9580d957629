"""Activation checkpointing: a block's inside is computed again in the backward pass, not kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ravine.errors import ArgumentError
from ravine.regularize import checkpoint_contexts
from ravine.training.devices.blocks import blocks


def recompute(model: nn.Module) -> int:
    """Let every block of a model keep its input only; return how many blocks there are.

    Dropout draws the same masks again (torch's from the saved state of its generator, ours from
    their counters), and running statistics of batch norm are updated once.

    Raises:
        ArgumentError: the model has no block.
    """
    found = blocks(model)
    if not found:
        raise ArgumentError(
            "the activations of this model cannot be computed again block by block",
            got=f"{type(model).__name__} without a list of modules that hold weights",
            expected="an nn.Sequential or nn.ModuleList somewhere in the model",
            do="leave checkpoint_activations out, or build the model of blocks",
        )
    for block in found:
        block.forward = _Recomputed(block)
    return len(found)


def undo(model: nn.Module) -> None:
    """Take back what `recompute` did: the model can be pickled again."""
    for block in model.modules():
        if isinstance(vars(block).get("forward"), _Recomputed):
            del block.forward


class _Recomputed:
    """A block's forward that keeps nothing of what it computes on the way."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._forward = block.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return checkpoint(
            self._forward, *args, use_reentrant=False, context_fn=self._contexts, **kwargs
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        first, again = checkpoint_contexts(self._block)
        return first, _statistics_once(self._block, again)


@contextlib.contextmanager
def _statistics_once(block: nn.Module, again: AbstractContextManager[None]) -> Iterator[None]:
    """Let the running statistics of batch norm be updated in copies that are dropped."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, own in zip(norms, kept, strict=True):
        norm._buffers.update({k: None if v is None else v.clone() for k, v in own.items()})
    try:
        with again:
            yield
    finally:
        for norm, own in zip(norms, kept, strict=True):
            norm._buffers.update(own)
