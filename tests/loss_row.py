"""What a row of the table of losses says, and samples that rows share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """A loss with options, what must give the same numbers, and what it must survive."""

    loss: str
    options: dict[str, Any]
    samples: Callable[[tuple[int, ...], torch.dtype], Pair]
    oracle: Callable[[Tensor, Tensor], Tensor]
    # (the numbers of one sample, its target) -> loss and slopes, in mpmath
    exact: Callable[[list[Any], Any], tuple[Any, list[Any]]]
    extremes: tuple[tuple[tuple[float, ...], Any], ...]
    mean: Callable[[Tensor, Tensor], Tensor] | None = None
    # Measured over the extremes in float32, in ulp: of the value, of the slope.
    ulp: tuple[float, float] = (2.0, 2.0)
    rows: bool = False  # a sample is a row of scores
    infinite: tuple[tuple[tuple[float, ...], Any, float, tuple[float, ...]], ...] = ()
    unusable: tuple[Any, str] | None = None  # a target outside of the domain, the domain in words
    extra: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = "-".join(
            f"{k}={'...' if isinstance(v, list) else v}" for k, v in self.options.items()
        )
        kind = self.extra.get("kind", "")
        return "-".join(part for part in (self.loss, kind, shown) if part).replace(" ", "")


def regression(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    return (torch.randn(shape) * 2).to(kind), torch.randn(shape).to(kind)


def probabilities(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    y = torch.rand(shape).to(kind)
    return (torch.randn(shape) * 3).to(kind), torch.where(torch.rand(shape) < 0.5, y.round(), y)


def signs(shape: tuple[int, ...], kind: torch.dtype) -> Pair:
    return torch.randn(shape).to(kind), torch.where(torch.rand(shape) < 0.5, -1.0, 1.0).to(kind)


INF = torch.inf
LOGITS = tuple(s * v for v in (0.0, 1e-4, 0.5, 17.0, 50.0, 88.0, 104.0, 1e9) for s in (1, -1))
