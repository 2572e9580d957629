"""Cross-entropy of a linear head in float64 with all logits, and cases of every option for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from ravine.losses import linear_chunks, linear_cross_entropy

WIDE = torch.float64


@contextlib.contextmanager
def small_chunks() -> Iterator[None]:
    """Make a few rows of a few classes into many chunks and blocks."""
    with (
        mock.patch.object(linear_chunks, "FEWEST", 3),
        mock.patch.object(linear_chunks, "CLASSES", 4),
        mock.patch.object(linear_chunks, "SLOPE_NUMBERS", 14),
    ):
        yield


def oracle(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return loss and logsumexp by torch's own operations."""
    x = F.linear(hidden, weight, bias).flatten(0, -2)
    if soft_cap is not None:
        x = soft_cap * torch.tanh(x / soft_cap)
    soft = target.is_floating_point()
    y = target.flatten(0, -2) if soft else target.flatten()
    losses = F.cross_entropy(
        x,
        y,
        weight=class_weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction="none",
    )
    factor = torch.ones(len(x), dtype=WIDE) if sample_weight is None else sample_weight.flatten()
    kept = torch.ones(len(x), dtype=torch.bool) if soft else y != ignore_index
    lse = torch.logsumexp(x, 1)
    losses = torch.where(kept, factor * (losses + z_loss * lse**2), 0.0)
    lse = torch.where(kept & (factor != 0), lse, 0.0).reshape(hidden.shape[:-1])
    if reduction == "none":
        return losses.reshape(hidden.shape[:-1]), lse
    if reduction == "sum":
        return losses.sum(), lse
    amount = factor * kept
    if class_weight is not None and not soft:
        amount = amount * class_weight[torch.where(kept, y, 0)]
    total = amount.sum() if normalizer is None else torch.tensor(normalizer)
    return losses.sum() / total if total > 0 else 0 * losses.sum(), lse


@dataclass
class Case:
    """One call."""

    hidden: Tensor
    weight: Tensor
    target: Tensor
    bias: Tensor | None
    options: dict[str, Any] = field(default_factory=dict)

    def leaves(self, kind: torch.dtype = WIDE) -> list[Tensor | None]:
        """Return hidden, weight and bias as new leaves."""
        return [
            None if t is None else t.detach().to(kind).requires_grad_()
            for t in (self.hidden, self.weight, self.bias)
        ]


def ours(case: Case, hidden: Tensor, weight: Tensor, bias: Tensor | None, **more: Any) -> Any:
    """Return our loss of a case with these inputs."""
    return linear_cross_entropy(hidden, weight, case.target, bias, **case.options, **more)


def theirs(
    case: Case, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the oracle's loss and logsumexp of a case with these inputs."""
    return oracle(hidden, weight, case.target, bias, **case.options)


@st.composite
def cases(draw: Any) -> Case:
    """Draw a call with any options together."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    classes, width = draw(st.sampled_from((1, 2, 5, 9, 70, 200))), draw(st.integers(1, 4))
    make = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, dtype=WIDE, generator=make)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, dtype=WIDE, generator=make)

    ignored = draw(st.sampled_from((-100, 0)))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        target = torch.softmax(normal(*shape, classes), -1)
    else:
        target = torch.randint(classes, shape, generator=make)
        if draw(st.booleans()):
            target = torch.where(uniform(*shape) < 0.5, ignored, target)
            options["ignore_index"] = ignored
    if draw(st.booleans()):
        options["class_weight"] = uniform(classes) + 0.1
    if draw(st.booleans()):
        options["sample_weight"] = uniform(*shape) * (uniform(*shape) < 0.6)
    if draw(st.booleans()):
        options["label_smoothing"] = draw(st.sampled_from((0.1, 1.0)))
    if draw(st.booleans()):
        options["z_loss"] = 0.3
    if draw(st.booleans()):
        options["soft_cap"] = 2.0
    options["reduction"] = draw(st.sampled_from(("mean", "sum", "none")))
    if options["reduction"] == "mean" and draw(st.booleans()):
        options["normalizer"] = 7.5
    bias = normal(classes) if draw(st.booleans()) else None
    return Case(2 * normal(*shape, width), normal(classes, width), target, bias, options)
