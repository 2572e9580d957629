"""Stochastic weight averaging, and the statistics of batch norm for weights that were averaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ravine.regularize.part import Part

_NORMS = nn.modules.batchnorm._BatchNorm


class StochasticWeightAverage(Part):
    """The mean of the weights at the ends of the last epochs; see `ravine.regularize.swa`.

    Args:
        start: the share of the epochs after which the mean begins, in [0, 1).
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self.count = 0
        self._weights: list[nn.Parameter] = []
        self._means: list[Tensor] = []

    def begin(self, model: nn.Module) -> None:
        self._weights = [p for p in model.parameters() if p.requires_grad]

    def after_epoch(self, epoch: int, epochs: int) -> None:
        # The last epoch counts whatever the start is.
        if epoch <= self.start * epochs and epoch < epochs:
            return
        self.count += 1
        with torch.no_grad():
            if not self._means:
                self._means = [w.detach().clone() for w in self._weights]
            for mean, weight in zip(self._means, self._weights, strict=True):
                mean.lerp_(weight, 1 / self.count)

    def averages(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._weights, self._means, strict=True)) if self._means else []

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "means": list(self._means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self._means = [
            mean.to(weight.device, copy=True)
            for mean, weight in zip(state["means"], self._weights, strict=False)
        ]


@contextlib.contextmanager
def swapped(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Put the second of each pair in the place of the first until the block ends."""
    kept = [weight.detach().clone() for weight, _ in pairs]
    with torch.no_grad():
        for weight, value in pairs:
            weight.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for (weight, _), old in zip(pairs, kept, strict=True):
                weight.copy_(old)


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model keeps statistics of batches.

    >>> has_batch_norm(nn.BatchNorm1d(2)), has_batch_norm(nn.LayerNorm(2))
    (True, False)
    """
    return any(isinstance(m, _NORMS) and m.track_running_stats for m in model.modules())


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Take means and variances of batch norm anew, for the weights that a model has now.

    Equation:
        mean = mean over batches of the batch's mean; likewise the (unbiased) variance

    Args:
        model: its running statistics are replaced; nothing happens where it has none.
        inputs: batches of the training data.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> reestimate_batch_norm(norm, [torch.tensor([[1.0], [3.0]])])
        >>> norm.running_mean, norm.running_var
        (tensor([2.]), tensor([2.]))

    Differs from torch's ``swa_utils.update_bn``, which has dropout on meanwhile: the statistics are
    used without it, and dropout changes variances (Li et al. 2019).

    Source: Izmailov et al. 2018, section 3.2.
    """
    norms = [m for m in model.modules() if isinstance(m, _NORMS) and m.track_running_stats]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    try:
        for batch in inputs:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
