"""How well a trained program does, as one number; more is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from cases.program import Program

Measure: TypeAlias = Callable[[Program], float]


def accuracy(part: str = "valid", *, threshold: float = 0.0) -> Measure:
    """Share of rows that are told right: argmax over classes, or one output against a threshold."""

    def measure(program: Program) -> float:
        output, target = program.outputs(part)
        return float(_right(output, target, threshold).float().mean())

    return measure


def _right(output: Tensor, target: Tensor, threshold: float) -> Tensor:
    if output.ndim == target.ndim and target.shape[-1] > 1:  # one-hot
        target = target.argmax(-1)
        return output.argmax(-1) == target
    if output.shape[-1] > 1:
        return output.argmax(-1) == target
    return (output.flatten() > threshold) == (target.flatten() > 0.5)


def explained(part: str = "valid") -> Measure:
    """Share of the targets' variance that is explained, 1 - MSE / variance, not below -1."""

    def measure(program: Program) -> float:
        output, target = program.outputs(part)
        error = (output.reshape(target.shape) - target).square().mean()
        return max(-1.0, 1 - float(error / target.float().var(correction=0)))

    return measure


def flattery(inner: Callable[[str], Measure]) -> Measure:
    """Minus what the validation data promises beyond what the test data holds."""

    def measure(program: Program) -> float:
        return inner("test")(program) - inner("valid")(program)

    return measure


def least_loss(program: Program) -> float:
    """Minus the training loss of the last epoch."""
    return -program.train_losses[-1] if program.train_losses else -torch.inf
