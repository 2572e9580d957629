"""What a part of a batch counts in the mean over the whole batch.

A loss that is a mean divides the sum over its elements by an amount: the rows, the tokens that are
not ignored, the sum of their class weights. The mean over a batch is then, exactly,

    mean = sum over parts of (amount of the part / amount of the batch) * mean of the part

whatever the sizes of the parts. The mean of the parts' means is another number.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ravine.losses.modules import LossModule


def is_sum(loss: Any) -> bool:
    """Whether a loss says of itself that it is a sum: its parts are added as they are."""
    return isinstance(loss, nn.Module) and getattr(loss, "reduction", None) == "sum"


def amount_of(loss: Any, targets: Tensor) -> float:
    """Return what a loss divides by for these targets.

    Known for the losses of `ravine.losses`, and torch's cross-entropy and NLL with their
    ``ignore_index`` and ``weight``. Any other loss is taken for a mean over rows.

    >>> import ravine, torch
    >>> amount_of(ravine.losses.CrossEntropy(), torch.tensor([2, -100, 0]))
    2.0
    >>> amount_of(nn.L1Loss(), torch.zeros(5, 3))
    5.0
    """
    if isinstance(loss, LossModule):
        amount = getattr(loss.function, "amount", None)
        if amount is not None:
            return float(amount(targets, **loss.hyperparameters))
    elif not targets.is_floating_point() and (known := _of_torch(loss)) is not None:
        ignored, weight = known
        kept = targets[targets != ignored]
        return float(kept.numel() if weight is None else weight.double()[kept].sum())
    return float(len(targets))


_FUNCTIONS = (nn.functional.cross_entropy, nn.functional.nll_loss)


def _of_torch(loss: Any) -> tuple[int, Tensor | None] | None:
    """Return ignore_index and class weights of a loss of torch that has them."""
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return loss.ignore_index, loss.weight
    return (-100, None) if loss in _FUNCTIONS else None
