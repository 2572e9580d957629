"""Which loss a callable is, told by its values. Cost: one forward pass of 64 rows, 12 losses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ravine.diagnose.evidence import Evidence

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossKind:
    """What a loss computes.

    Attributes:
        name: of the loss that gives the same numbers up to a factor, or "unknown".
        factor: that factor; negative where the loss is turned round.
        wants: what it takes the output for: "numbers", "logits", "probabilities",
            "log-probabilities" or "unknown".
    """

    name: str
    factor: float
    wants: str

    @property
    def classifies(self) -> bool:
        """Whether it is a loss for classes."""
        return self.wants in ("logits", "probabilities", "log-probabilities", "margins")


def _last(loss: Loss) -> Loss:
    """Return a loss of torch with the classes in the last dimension of any output."""
    return lambda o, y: loss(o.reshape(-1, o.shape[-1]), y.reshape(-1).long())


_KNOWN: list[tuple[str, str, Loss]] = [
    ("mse", "numbers", F.mse_loss),
    ("mae", "numbers", F.l1_loss),
    ("smooth_l1", "numbers", F.smooth_l1_loss),
    ("binary_cross_entropy", "logits", F.binary_cross_entropy_with_logits),
    ("binary_cross_entropy of probabilities", "probabilities", F.binary_cross_entropy),
    ("hinge", "margins", lambda o, y: (1 - o * y).clamp(min=0).mean()),
    ("cross_entropy", "logits", F.cross_entropy),
    ("cross_entropy", "logits", _last(F.cross_entropy)),
    ("cross_entropy of a softmax", "logits", lambda o, y: F.cross_entropy(o.softmax(1), y)),
    ("cross_entropy of a softmax", "logits", _last(lambda o, y: F.cross_entropy(o.softmax(1), y))),
    ("nll", "log-probabilities", F.nll_loss),
    ("nll", "log-probabilities", _last(F.nll_loss)),
    (
        "cross_entropy of probabilities",
        "probabilities",
        _last(lambda p, y: F.nll_loss(p.clamp(min=1e-7).log(), y)),
    ),
    (
        "cross_entropy of probabilities",
        "probabilities",
        lambda p, y: -(y * p.clamp(min=1e-7).log()).sum(-1).mean(),
    ),
    ("poisson", "logits", lambda o, y: F.poisson_nll_loss(o, y, log_input=True)),
]


def loss_kind(evidence: Evidence) -> LossKind:
    """Compare the program's loss with known ones on outputs drawn at random."""
    fresh = evidence.fresh()
    inputs, targets = (part[:64] for part in evidence.sample)
    fresh.model.eval()
    with torch.no_grad():
        output = fresh.model(inputs)
    generator = torch.Generator().manual_seed(0)
    draws = [
        torch.rand(output.shape, generator=generator).to(output).clamp(1e-3, 1 - 1e-3)
        for _ in range(3)
    ]
    if output.ndim > 1 and output.shape[-1] > 1:
        draws += [draw.log_softmax(-1).exp() for draw in draws[:2]]  # rows that sum to 1
    ours = [_value(fresh.loss, draw, targets) for draw in draws]
    for name, wants, known in _KNOWN:
        theirs = [_value(known, draw, targets) for draw in draws]
        factor = _factor(ours, theirs)
        if factor is not None:
            return LossKind(name, factor, wants)
    return LossKind("unknown", 1.0, "unknown")


def _value(loss: Loss, output: Tensor, targets: Tensor) -> float | None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns where it broadcasts by accident
            value = loss(output, targets)
        if value.ndim:
            return None
    except (RuntimeError, ValueError, TypeError, IndexError, UserWarning):
        return None
    return float(value)


def _factor(ours: list[float | None], theirs: list[float | None]) -> float | None:
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b]
    if len(pairs) < 3:
        return None
    ratios = [a / b for a, b in pairs]
    middle = sorted(ratios)[len(ratios) // 2]
    same = all(abs(ratio - middle) <= 1e-3 * abs(middle) for ratio in ratios)
    return middle if same and middle else None
