"""Metrics: one number a prediction, whose mean over the data is the metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ravine.errors import ArgumentError, ShapeError

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Tell for each prediction whether it names the right class.

    ``1`` where ``argmax(output, -1) == target``; for one logit a prediction, ``1`` where
    ``(output > 0) == (target > 0)``, which holds for targets in {0, 1} and in {-1, +1} alike.

    Args:
        output: class logits (..., C) or binary logits (...).
        target: class indices (...), an integer dtype, for class logits; for binary logits a
            floating or boolean tensor of the output's shape. The dtype and the shape decide which
            is meant, never the values.

    Returns:
        float32 zeros and ones of the target's shape.

    Raises:
        ShapeError: the shapes are neither of the two.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0])).mean()
    tensor(0.5000)
    >>> accuracy(torch.tensor([[-1.0], [4.0]]), torch.tensor([[-1.0], [1.0]])).mean()
    tensor(1.)

    Differs from Keras, whose ``"accuracy"`` also rounds probabilities: outputs are logits here.
    """
    if target.is_floating_point() or target.dtype == torch.bool:
        _same_shape("accuracy", output, target)
        return ((output > 0) == (target > 0)).float()
    if output.shape[:-1] != target.shape or output.ndim == 0:
        raise ShapeError(
            "accuracy: class logits and class indices do not fit each other",
            got=f"output {tuple(output.shape)}, target {tuple(target.shape)} {target.dtype}",
            expected="output (..., C) with integer targets (...)",
            do="for one logit a sample, give targets of the output's shape in a floating dtype",
        )
    return (output.argmax(-1) == target).float()


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return ``(output - target)**2``, element by element, for tensors of one shape.

    >>> squared_error(torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0], [1.0]])).mean()
    tensor(4.5000)
    """
    _same_shape("squared_error", output, target)
    return (output - target).square()


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Return ``|output - target|``, element by element, for tensors of one shape.

    >>> absolute_error(torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0], [1.0]])).mean()
    tensor(1.5000)
    """
    _same_shape("absolute_error", output, target)
    return (output - target).abs()


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
}
"""The metrics that a task can name."""


class InOriginalUnits:
    """A metric of a model whose targets were standardised, in the units they had before.

    ``metric(scale * output + mean, scale * target + mean)``

    Args:
        metric: a name of ``METRICS`` that takes tensors of one shape.
        mean: what was subtracted from the targets, in the original units.
        scale: what the targets were divided by, in the original units, above 0.

    >>> error = InOriginalUnits("absolute_error", mean=150.0, scale=80.0)
    >>> error(torch.tensor([[0.5]]), torch.tensor([[0.0]]))
    tensor([[40.]])
    >>> error.__name__
    'absolute_error'
    """

    def __init__(self, metric: str, *, mean: float, scale: float) -> None:
        if not scale > 0:
            raise ArgumentError(
                "the scale of the targets is not positive", got=repr(scale), expected="scale > 0"
            )
        self.__name__ = metric
        self.metric = METRICS[metric]
        self.mean = mean
        self.scale = scale

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self.metric(self.scale * output + self.mean, self.scale * target + self.mean)

    def __repr__(self) -> str:
        return f"InOriginalUnits({self.__name__!r}, mean={self.mean!r}, scale={self.scale!r})"


def metric_name(metric: str | Metric) -> str:
    """Return the name under which a metric is recorded.

    >>> metric_name("accuracy"), metric_name(squared_error)
    ('accuracy', 'squared_error')
    """
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "__name__", type(metric).__name__))


def _same_shape(name: str, output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise ShapeError(
            f"{name}: output and target differ in shape and would broadcast by accident",
            got=f"output {tuple(output.shape)}, target {tuple(target.shape)}",
            expected="one shape for both",
            do="reshape the target, for instance target.view_as(output)",
        )
