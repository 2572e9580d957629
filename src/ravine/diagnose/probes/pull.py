"""Where a loss pulls the output, row by row, and whether it looks at the targets and the output.

Cost: five losses of 128 rows and one backward pass through the loss alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.quality import Kind

ROWS = 128


@dataclass(frozen=True)
class Pull:
    """What a loss asks for.

    Attributes:
        toward: the share of rows where it pulls the output to the target: the target's class above
            all others, or the number nearer to the target; NaN where that cannot be told.
        away: the share where it pulls to the opposite: the target's class below all others.
        rows_matter: whether the loss changes when targets change places; None if all are equal.
        output_matters: whether it changes with the output.
        shapes: of the output and of the targets, with the rows.
        classes: how many classes the targets have; 0 for numbers.
    """

    toward: float
    away: float
    rows_matter: bool | None
    output_matters: bool
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    classes: int


def pull(evidence: Evidence) -> Pull:
    """Take the gradient of the program's loss by the output, at outputs drawn at random."""
    fresh = evidence.fresh()
    inputs, targets = (part[:ROWS] for part in evidence.sample)
    fresh.model.eval()
    with torch.no_grad():
        shape = fresh.model(inputs[:ROWS]).shape
    return measured_pull(fresh.loss, shape, targets, evidence.kind, _classes(evidence))


def measured_pull(
    loss: Any, shape: torch.Size, targets: Tensor, kind: Kind, classes: int = 0
) -> Pull:
    """Look at a loss of outputs of a shape."""
    # Inside (0, 1), where probabilities, logits and numbers are all defined.
    generator = torch.Generator().manual_seed(0)
    output = (0.1 + 0.8 * torch.rand(shape, generator=generator)).requires_grad_()
    turned = targets.roll(max(1, len(targets) // 3), 0)
    try:
        value = loss(output, targets)
        gradient = (
            torch.autograd.grad(value, output)[0]
            if value.requires_grad
            else torch.zeros_like(output)
        )
        near = _among(targets, output.detach())
        other, value = float(loss(near, turned)), float(loss(near, targets))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return Pull(math.nan, math.nan, None, True, (tuple(shape), tuple(targets.shape)), classes)
    same = bool((turned == targets).all())
    toward, away = _shares(-gradient, output.detach(), targets, kind)
    return Pull(
        toward=toward,
        away=away,
        rows_matter=None if same else abs(other - value) > 1e-5 * abs(value),
        output_matters=bool((gradient != 0).any()),
        shapes=(tuple(shape), tuple(targets.shape)),
        classes=classes,
    )


def _among(targets: Tensor, output: Tensor) -> Tensor:
    """Return the output in the range of targets that are numbers.

    Far from them, who is paired with whom is lost in the rounding of the squares.
    """
    if not targets.is_floating_point():
        return output
    least, most = targets.min(), targets.max()
    if bool(least >= 0) and bool(most <= 1):  # probabilities, maybe: the output stays inside (0, 1)
        return output
    return least + (most - least) * output


def _shares(force: Tensor, output: Tensor, targets: Tensor, kind: Kind) -> tuple[float, float]:
    nothing = math.nan, math.nan
    if kind in ("classes", "one-hot"):
        labels = targets.argmax(1) if kind == "one-hot" else targets
        if force.shape[:-1] != labels.shape and force.ndim == labels.ndim + 1:
            force = force.movedim(1, -1)  # classes second, as torch has them
        if force.ndim != labels.ndim + 1 or force.shape[-1] < 2:
            return nothing
        if int(labels.max()) >= force.shape[-1] or int(labels.min()) < 0:
            return nothing
        own = force.gather(-1, labels[..., None].long())
        others = force.scatter(-1, labels[..., None].long(), math.nan)
        above = others.nan_to_num(nan=-math.inf).amax(-1, keepdim=True)
        below = others.nan_to_num(nan=math.inf).amin(-1, keepdim=True)
        return float((own > above).double().mean()), float((own < below).double().mean())
    if force.shape != targets.shape:
        return nothing
    wanted = targets - output
    told = (force * wanted).flatten()[(wanted.abs() > 1e-3).flatten()]
    if not len(told):
        return nothing
    return float((told > 0).double().mean()), float((told < 0).double().mean())


def _classes(evidence: Evidence) -> int:
    targets = evidence.sample[1]
    if evidence.kind == "one-hot":
        return targets.shape[1]
    if evidence.kind == "classes":
        return int(targets.max()) + 1
    return 2 if evidence.kind == "binary" else 0
