"""Mixup and CutMix: batches mixed with themselves in another order."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ravine.errors import ArgumentTypeError, ShapeError, TargetError
from ravine.regularize.part import Batch, Part


class Mixing(Part):
    """Inputs and targets mixed with those of the batch in another order, by one share a batch.

    Targets that are classes become probabilities, others are mixed as numbers.

    Args:
        alpha: the share is drawn from Beta(alpha, alpha).
        seed: decides shares, orders and places, together with the step.
    """

    def __init__(self, alpha: float, seed: int) -> None:
        self.alpha = alpha
        self.seed = seed
        self._model: nn.Module | None = None
        self._classes: int | None = None
        self._looked = False

    def begin(self, model: nn.Module) -> None:
        self._model = model

    def look(self, model: nn.Module, batch: Batch) -> None:
        """Check the first batch, and count the classes where its targets are classes."""
        inputs, targets = batch
        if not inputs.is_floating_point():
            raise ArgumentTypeError(
                f"{type(self).__name__.lower()} mixes inputs that are numbers",
                got=f"inputs of {inputs.dtype}",
                expected="floating-point inputs",
                do="leave it out: the mean of two tokens or categories means nothing",
            )
        if targets.is_floating_point():
            return
        was = model.training
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = model(inputs[:2])
        model.train(was)
        if output.ndim != targets.ndim + 1:
            raise ShapeError(
                f"{type(self).__name__.lower()} turns classes into probabilities",
                got=f"output {tuple(output.shape)}, targets {tuple(targets[:2].shape)}",
                expected="an output with one dimension more than the targets: the classes",
            )
        self._classes = output.shape[-1]

    def batch(self, batch: Batch, step: int) -> Batch:
        if not self._looked and self._model is not None:
            self.look(self._model, batch)
            self._looked = True
        inputs, targets = batch
        draw = np.random.Generator(np.random.Philox(key=(self.seed, step)))
        share = float(draw.beta(self.alpha, self.alpha))
        order = torch.from_numpy(draw.permutation(len(inputs))).to(inputs.device)
        mixed, share = self.mixed(inputs, order, share, draw)
        if self._classes is not None:
            targets = _probabilities(targets, self._classes, inputs.dtype)
        return mixed, share * targets + (1 - share) * targets[order]

    def mixed(
        self, inputs: Tensor, order: Tensor, share: float, draw: np.random.Generator
    ) -> tuple[Tensor, float]:
        """Return the mixed inputs, and the share of each row that is its own."""
        raise NotImplementedError


class Mixup(Mixing):
    """Every row is share x + (1 - share) x of another row; see `ravine.regularize.mixup`."""

    def mixed(
        self, inputs: Tensor, order: Tensor, share: float, draw: np.random.Generator
    ) -> tuple[Tensor, float]:
        return share * inputs + (1 - share) * inputs[order], share


class CutMix(Mixing):
    """A rectangle of every image is that of another; see `ravine.regularize.cutmix`."""

    def look(self, model: nn.Module, batch: Batch) -> None:
        if batch[0].ndim != 4:
            raise ShapeError(
                "cutmix takes images",
                got=f"inputs {tuple(batch[0].shape)}",
                expected="inputs (rows, channels, height, width)",
                do="use mixup, or give the images their shape in the data",
            )
        super().look(model, batch)

    def mixed(
        self, inputs: Tensor, order: Tensor, share: float, draw: np.random.Generator
    ) -> tuple[Tensor, float]:
        height, width = inputs.shape[-2:]
        side = math.sqrt(1 - share)
        (top, bottom), (left, right) = (_cut(size, side, draw) for size in (height, width))
        inputs = inputs.clone()
        inputs[..., top:bottom, left:right] = inputs[order][..., top:bottom, left:right]
        return inputs, 1 - (bottom - top) * (right - left) / (height * width)


def _cut(size: int, side: float, draw: np.random.Generator) -> tuple[int, int]:
    """Return begin and end of a cut of size * side around a place drawn evenly, within the size."""
    centre, half = int(draw.integers(size)), int(size * side) // 2
    return max(centre - half, 0), min(centre + half, size)


def _probabilities(targets: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise TargetError(
            "a class is out of range",
            got=f"classes from {int(targets.min())} to {int(targets.max())}",
            expected=f"0 to {classes - 1}",
            do="leave rows with ignored targets out of the data: mixing would spread them",
        )
    return nn.functional.one_hot(targets, classes).to(dtype)
