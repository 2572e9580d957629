"""Where a run that does not get on stands: gradient, curvature, and what steps from there gain.

Cost: four gradients, at most 60 Hessian-vector products and some 80 losses of 256 rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.curvature import Extremes, extremes, hessian_product, split
from ravine.diagnose.probes.run import run
from ravine.diagnose.program import Fresh

ROWS, FEWEST = 256, 32
ANSWERS = 1024
"""Targets in a half: of sequences, fewer rows. A text Transformer took 6.5 s with 256 of them."""
LENGTHS = [10.0**k for k in (-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1)]


@dataclass(frozen=True)
class Place:
    """A point of the loss, looked at in evaluation mode on two disjoint halves of some rows; on all
    rows twice where the program takes them all in one batch.

    Attributes:
        step: the step of the run at which its weights were these.
        loss: on the second half.
        gradient: the norm of the first half's gradient.
        agreement: the cosine between the gradients of the halves: near 0 they are noise.
        lowest, highest: the ends of the first half's spectrum.
        held_out: the second half's curvature along the eigenvector of the lowest.
        fall: how much the second half's loss falls by the step along that direction, of either
            sign, whose length was chosen on the first half; 0 where it does not fall.
        length: of that step.
        slope_fall: the same for a step along the first half's gradient.
        noise: the standard error of the fall over quarters of the second half.
        spectrum: see `Extremes`.
    """

    step: int
    loss: float
    gradient: float
    agreement: float
    lowest: float
    highest: float
    held_out: float
    fall: float
    length: float
    slope_fall: float
    noise: float
    spectrum: tuple[tuple[float, float], ...] = ()

    @property
    def saddle(self) -> bool:
        """Whether a step along negative curvature lowers the loss of rows that did not choose it."""
        return (
            self.lowest < -1e-3 * max(abs(self.highest), 1e-12)
            and self.highest > 1e-3 * abs(self.lowest)  # downwards only: a slope, not a saddle
            and self.held_out < 0
            and self.fall > 2 * self.noise
            and self.fall > 0.05 * abs(self.loss)
            and self.fall > 0.3 * self.slope_fall
            # A gradient that would lower the loss as much over the same length is no stationary one.
            and self.gradient * self.length < self.fall
        )

    @property
    def stationary(self) -> bool:
        """Whether neither the gradient nor the curvature leads down."""
        return not self.saddle and max(self.fall, self.slope_fall) <= 0.02 * abs(self.loss) + 1e-9


class _NoCurvature(Exception):  # noqa: N818
    """The model or its loss has no second derivative."""


def first_place(evidence: Evidence) -> Place | None:
    """Look at the weights before the first step."""
    return _place(evidence, 0)


def last_place(evidence: Evidence) -> Place | None:
    """Look at the weights after the last step; None where there is no second derivative."""
    return _place(evidence, -1)


def _place(evidence: Evidence, which: int) -> Place | None:
    step, state = evidence.probe(run).states[which]
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        return None
    sample = evidence.sample  # before the weights are set: it may make the program anew
    kinds = {p.dtype for p in evidence.fresh().model.parameters()}
    # Rounding must not pass for curvature; but a model may hold numbers of its own in float32.
    for dtype in (torch.float64, torch.float32) if len(kinds) == 1 else ():
        fresh = evidence.fresh()
        fresh.model.load_state_dict(state)
        fresh.model.to(dtype).eval()
        inputs, targets = (_cast(part[: 2 * _rows(sample[1])], dtype) for part in sample)
        try:
            return _looked_at(fresh, step, inputs, targets)
        except _NoCurvature:
            return None
        except (RuntimeError, ValueError, NotImplementedError, TypeError):
            continue
        finally:
            fresh.model.to(next(iter(kinds)))  # a Task's own model is the next replay's as well
    return None


def _rows(targets: Tensor) -> int:
    """Return how many rows make a half."""
    return min(ROWS, max(FEWEST, ANSWERS * len(targets) // max(1, targets.numel())))


def _cast(part: Tensor, dtype: torch.dtype) -> Tensor:
    return part.to(dtype) if part.is_floating_point() else part


def _looked_at(fresh: Fresh, step: int, inputs: Tensor, targets: Tensor) -> Place:
    chosen, other = slice(0, None, 2), slice(1, None, 2)  # every other row: they may be sorted
    if fresh.steps == fresh.epochs or len(inputs) < 4:  # all rows in a batch: no noise in the loss
        chosen = other = slice(None)
    weights: list[Tensor] = [p for p in fresh.model.parameters() if p.requires_grad]

    def loss(rows: slice) -> Tensor:
        value: Tensor = fresh.loss(fresh.model(inputs[rows]), targets[rows])
        return value

    slope, slope_other = _flat(loss(chosen), weights), _flat(loss(other), weights)
    if weights[0].dtype == torch.float64:
        _check(
            hessian_product(lambda: loss(chosen), weights),
            lambda: _flat(loss(chosen), weights),
            weights,
        )
    product = hessian_product(lambda: loss(chosen), weights)
    ends: Extremes = extremes(product, len(slope))
    v = ends.direction
    held_out = float(v @ hessian_product(lambda: loss(other), weights)(v))
    walk = _Walk(fresh, weights, inputs[other], targets[other])
    best = walk.best(lambda: float(loss(chosen)), [v, -v])
    norm = float(slope.norm())
    downhill = walk.best(lambda: float(loss(chosen)), [-slope / norm] if norm > 0 else [])
    agreement = float(slope @ slope_other) / max(norm * float(slope_other.norm()), 1e-300)
    fall, noise = walk.fall(best)
    return Place(
        step=step,
        loss=walk.start,
        gradient=norm,
        agreement=agreement,
        lowest=ends.lowest,
        highest=ends.highest,
        held_out=held_out,
        fall=max(fall, 0.0),
        length=0.0 if best is None else float(best.norm()),
        slope_fall=max(walk.fall(downhill)[0], 0.0),
        noise=noise,
        spectrum=ends.spectrum,
    )


def _flat(loss: Tensor, weights: list[Tensor]) -> Tensor:
    found: Any = torch.autograd.grad(loss, weights, allow_unused=True)
    parts = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    return torch.cat([part.detach().flatten().double() for part in parts])


def _check(product: Any, slope: Any, weights: list[Tensor]) -> None:
    """Compare a product with differences of the gradient: autograd answers 0 for what it cannot do.

    A function that is differentiable once has no error where the graph behind it is cut off.

    Raises:
        _NoCurvature: they differ by more than half, which the kinks of a ReLU do not explain.
    """
    size = sum(w.numel() for w in weights)
    v = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v *= 1e-6 / v.norm()
    home = [w.detach().clone() for w in weights]
    found = product(v)  # before the weights of its graph are written to
    slopes = []
    for sign in (1, -1):
        with torch.no_grad():
            for w, start, part in zip(weights, home, split(v, weights), strict=True):
                w.copy_(start + sign * part)
        slopes.append(slope())
    with torch.no_grad():
        for w, start in zip(weights, home, strict=True):
            w.copy_(start)
    wanted = (slopes[0] - slopes[1]) / 2
    if float((found - wanted).norm()) > 0.5 * float(wanted.norm()) + 1e-13:
        raise _NoCurvature


class _Walk:
    """Steps away from the weights and back."""

    def __init__(
        self, fresh: Fresh, weights: list[Tensor], inputs: Tensor, targets: Tensor
    ) -> None:
        self.model: nn.Module = fresh.model
        self.loss = fresh.loss
        self.weights = weights
        self.home = [w.detach().clone() for w in weights]
        self.pairs = list(zip(inputs.chunk(4), targets.chunk(4), strict=True))
        self.before = self._losses()
        self.start = sum(self.before) / len(self.before)

    @torch.no_grad()
    def best(self, chooses: Any, directions: list[Tensor]) -> Tensor | None:
        """Return the step that lowers the loss most that chooses, or None if none lowers it."""
        least, found = chooses(), None
        for direction in directions:
            for length in LENGTHS:
                self._go(length * direction)
                value = chooses()
                if value < least:
                    least, found = value, length * direction
        self._go(None)
        return found

    @torch.no_grad()
    def fall(self, step: Tensor | None) -> tuple[float, float]:
        """Return by how much a step lowers the held-out loss, and the standard error of that."""
        if step is None:
            return 0.0, 0.0
        self._go(step)
        falls = torch.tensor(
            [b - a for b, a in zip(self.before, self._losses(), strict=True)], dtype=torch.float64
        )
        self._go(None)
        error = float(falls.std() / math.sqrt(len(falls))) if len(falls) > 1 else 0.0
        return float(falls.mean()), error

    @torch.no_grad()
    def _losses(self) -> list[float]:
        return [float(self.loss(self.model(X), y)) for X, y in self.pairs]

    def _go(self, step: Tensor | None) -> None:
        parts = self.home if step is None else split(step, self.weights)
        for w, home, part in zip(self.weights, self.home, parts, strict=True):
            w.copy_(home if step is None else home + part.to(w))
