"""What the built-in tasks do to their data: split by seed, standardise by the training part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ravine.errors import ArgumentError

Pair: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Split:
    """Row numbers (int64, ascending) of the three parts, which share no row."""

    train: Tensor
    valid: Tensor
    test: Tensor

    def of(self, inputs: Tensor, targets: Tensor) -> tuple[Pair, Pair, Pair]:
        """Return inputs and targets of the training, validation and test part.

        >>> split = Split(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3]))
        >>> split.of(torch.arange(4), torch.arange(4))[1]
        (tensor([2]), tensor([2]))
        """
        train, valid, test = (
            (inputs[rows], targets[rows]) for rows in (self.train, self.valid, self.test)
        )
        return train, valid, test


def split_rows(
    rows: int, seed: int, *, classes: Tensor | None = None, valid: float = 0.15, test: float = 0.15
) -> Split:
    """Split rows at random by seed, each class in proportion if classes are given.

    Args:
        rows: how many rows there are.
        seed: the same seed gives the same parts; the global generators are not used.
        classes: int64 (rows,); each class is split on its own (stratified).
        valid, test: the share of each part in (0, 1); the rest trains.

    Raises:
        ArgumentError: a part would be empty.

    >>> split = split_rows(10, seed=0, valid=0.2, test=0.2)
    >>> [len(part) for part in (split.train, split.valid, split.test)]
    [6, 2, 2]

    Differs from scikit-learn's ``train_test_split``: three parts at once, in row order.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = (
        [torch.arange(rows)]
        if classes is None
        else [torch.nonzero(classes == label).flatten() for label in torch.unique(classes)]
    )
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for group in groups:
        mixed = group[torch.randperm(len(group), generator=generator)]
        first = round(valid * len(group))
        second = round((valid + test) * len(group))
        parts[0].append(mixed[second:])
        parts[1].append(mixed[:first])
        parts[2].append(mixed[first:second])
    split = Split(*(torch.cat(part).sort().values for part in parts))
    if min(len(split.train), len(split.valid), len(split.test)) == 0:
        raise ArgumentError(
            "too few rows to split", got=f"{rows} rows", expected="a row in each part at least"
        )
    return split


@dataclass(frozen=True)
class Standardiser:
    """Affine map to mean 0 and deviation 1: ``(x - mean) / scale``, in float32.

    A column that does not vary in the training part has scale 1, so that it becomes 0, not NaN.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, train: Tensor, *, per_column: bool = True) -> Standardiser:
        """Take mean and deviation (divided by n) of the training part, in float64.

        Args:
            train: (n, ...) of the training part only.
            per_column: statistics of each column; otherwise of all values together, right where
                all columns share a unit (pixels).

        >>> scaler = Standardiser.of(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
        >>> scaler(torch.tensor([[3.0, 7.0]]))
        tensor([[1., 0.]])
        """
        values = train.double()
        mean = values.mean(0) if per_column else values.mean()
        centred = values - mean
        variance = (centred.square()).mean(0) if per_column else centred.square().mean()
        scale = variance.sqrt()
        return cls(mean, torch.where(scale > 0, scale, torch.ones_like(scale)))

    def __call__(self, values: Tensor) -> Tensor:
        return ((values.double() - self.mean) / self.scale).float()


def class_entropy(labels: Tensor) -> float:
    """Return the cross-entropy (nats) of the best constant prediction: ``-sum p_k ln p_k``.

    >>> round(class_entropy(torch.tensor([0, 1, 0, 1])), 6)
    0.693147
    """
    counts = torch.unique(labels, return_counts=True)[1].double()
    share = counts / counts.sum()
    return -float((share * share.log()).sum())
