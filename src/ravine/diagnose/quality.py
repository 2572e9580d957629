"""How good predictions are, whatever the loss: accuracy, or the share of variance explained."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["classes", "binary", "one-hot", "numbers"]


def kind_of(targets: Tensor) -> Kind:
    """Return what targets are, by their type and values.

    >>> kind_of(torch.tensor([0, 2])), kind_of(torch.tensor([[0.0], [1.0]]))
    ('classes', 'binary')
    """
    if not targets.is_floating_point():
        return "classes"
    values = torch.unique(targets)
    two = len(values) == 2 and (values.tolist() == [0.0, 1.0] or values.tolist() == [-1.0, 1.0])
    wide = targets.ndim == 2 and targets.shape[1] > 1
    if wide and values.tolist() == [0.0, 1.0] and bool((targets.sum(1) == 1).all()):
        return "one-hot"
    return "binary" if two else "numbers"


def quality(output: Tensor, targets: Tensor) -> float:
    """Return accuracy for classes, R2 for numbers; NaN where output and targets do not fit."""
    output, targets = output.detach(), targets.detach()
    if not bool(torch.isfinite(output).all()):
        return float("nan")
    kind = kind_of(targets)
    if kind == "classes":
        if output.ndim == targets.ndim + 1:
            # Classes last, as ravine.losses; or second, as torch has them for images and text.
            fits = output.shape[:-1] == targets.shape
            chosen = output.argmax(-1) if fits else output.argmax(1)
            return float((chosen == targets).double().mean())
        if output.shape == targets.shape:
            return float((output.round() == targets).double().mean())
        if output.numel() == targets.numel():
            return float((output.flatten().round() == targets.flatten()).double().mean())
        return float("nan")
    if output.shape != targets.shape:
        if output.numel() != targets.numel():
            return float("nan")
        output = output.reshape(targets.shape)
    if kind == "one-hot":
        return float((output.argmax(1) == targets.argmax(1)).double().mean())
    if kind == "binary":
        signed = bool((targets < 0).any())
        probabilities = not signed and bool(((output >= 0) & (output <= 1)).all())
        edge = 0.5 if probabilities else 0.0
        return float(((output > edge) == (targets > 0)).double().mean())
    values, wanted = output.double(), targets.double()
    spread = (wanted - wanted.mean(0)).square().mean()
    return float(1 - (values - wanted).square().mean() / spread) if spread > 0 else float("nan")


def chance(targets: Tensor) -> float:
    """Return the quality of the best constant answer."""
    kind = kind_of(targets)
    if kind == "numbers":
        return 0.0
    labels = targets.argmax(1) if kind == "one-hot" else targets.flatten()
    counts = torch.unique(labels, return_counts=True)[1]
    return float(counts.max() / counts.sum())
