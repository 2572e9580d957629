"""One row for every loss of whole samples, with an oracle in float64 that shares no code with it.

The oracle is torch's own where torch has the loss, else the paper's formula written out sample by
sample. A new loss of samples needs one row here and gets the tests of test_sample_losses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SampleRow:
    """A loss with options, tensors of N samples of a type for it, and what must give the same."""

    loss: str
    options: dict[str, Any]
    samples: Callable[[int, torch.dtype], tuple[Tensor, ...]]
    oracle: Callable[..., Tensor]
    alone: bool = True  # a sample's loss depends on that sample only

    def __str__(self) -> str:
        shown = "-".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.loss}-{shown}".replace(" ", "")


def vectors(count: int) -> Callable[[int, torch.dtype], tuple[Tensor, ...]]:
    return lambda n, kind: tuple(torch.randn(n, 4).to(kind) for _ in range(count))


def pairs(n: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    left, right = vectors(2)(n, kind)
    return left, left + right / 4, torch.arange(n) % 2


def masks(n: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    return torch.randn(n, 3, 2).to(kind) * 2, (torch.rand(n, 3, 2) < 0.5).long()


def soft_masks(n: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    return torch.randn(n, 6).to(kind) * 2, torch.rand(n, 6, dtype=torch.float32)


def segments(n: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    return torch.randn(n, 3, 4, 2).to(kind), torch.randint(3, (n, 4, 2))


def segments_with_holes(n: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    x, y = segments(n, kind)
    y[:, 1, 1] = 7
    return x, y


def soft_segments(n: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    return torch.randn(n, 4, 3).to(kind), torch.softmax(torch.randn(n, 4, 3), -1)


def by_hand_contrastive(margin: float) -> Callable[..., Tensor]:
    def oracle(x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        d = F.pairwise_distance(x, z, eps=0.0)
        return torch.where(y == 0, 0.5 * d**2, 0.5 * (margin - d).clamp(min=0) ** 2)

    return oracle


def by_hand_overlap(
    alpha=0.5, beta=0.5, gamma=1.0, smooth=0.5, dim=None, class_weight=None, ignore_index=None
) -> Callable[..., Tensor]:
    def index(p: Tensor, y: Tensor) -> Tensor:
        right = (p * y).sum()
        bad = alpha * (p * (1 - y)).sum() + beta * ((1 - p) * y).sum()
        return 1 - (right + smooth) / (right + bad + smooth)

    def oracle(x: Tensor, y: Tensor) -> Tensor:
        found = []
        for one, mask in zip(x, y, strict=True):
            if dim is None:
                found.append(index(torch.sigmoid(one), mask.double()) ** gamma)
                continue
            p = one.movedim(dim % x.ndim - 1, 0).softmax(0).flatten(1)
            losses = []
            for k in range(len(p)):
                if mask.is_floating_point():
                    part = index(p[k], mask.movedim(dim % x.ndim - 1, 0)[k].flatten())
                else:
                    kept = mask.flatten() != ignore_index
                    part = index(p[k][kept], (mask.flatten()[kept] == k).double())
                losses.append(part**gamma)
            shares = torch.tensor(class_weight or [1.0] * len(p), dtype=torch.float64)
            found.append((torch.stack(losses) * shares).sum() / shares.sum())
        return torch.stack(found)

    return oracle


def by_hand_info_nce(temperature=0.07, symmetric=False, cosine=True) -> Callable[..., Tensor]:
    def one_way(u: Tensor, v: Tensor) -> Tensor:
        found = []
        for i in range(len(u)):
            if cosine:
                s = torch.stack([F.cosine_similarity(u[i], w, dim=0) for w in v]) / temperature
            else:
                s = torch.stack([u[i] @ w for w in v]) / temperature
            found.append(s.logsumexp(0) - s[i])
        return torch.stack(found)

    def oracle(u: Tensor, v: Tensor) -> Tensor:
        return (one_way(u, v) + one_way(v, u)) / 2 if symmetric else one_way(u, v)

    return oracle


def by_hand_nt_xent(temperature: float) -> Callable[..., Tensor]:
    def oracle(u: Tensor, v: Tensor) -> Tensor:
        z = torch.stack([u, v], 1).flatten(0, 1)  # the paper's order: the views 2k - 1 and 2k
        found = []
        for i in range(len(z)):
            similar = [F.cosine_similarity(z[i], w, dim=0) / temperature for w in z]
            rest = torch.stack([s for k, s in enumerate(similar) if k != i])
            found.append(rest.logsumexp(0) - similar[i ^ 1])
        return torch.stack(found).reshape(-1, 2).mean(1)

    return oracle


def by_torch_triplet(**options: Any) -> Callable[..., Tensor]:
    return lambda a, p, n: F.triplet_margin_loss(a, p, n, reduction="none", **options)


SAMPLE_ROWS: list[SampleRow] = [
    *(
        SampleRow("triplet", options, vectors(3), by_torch_triplet(**options))
        for options in (
            {},
            {"margin": 3.0, "p": 1.0, "swap": True},
            {"p": 3.5, "eps": 1e-3},
            {"p": float("inf")},
        )
    ),
    SampleRow("contrastive", {}, pairs, by_hand_contrastive(1.0)),
    SampleRow("contrastive", {"margin": 0.5}, pairs, by_hand_contrastive(0.5)),
    SampleRow("dice", {}, masks, by_hand_overlap()),
    SampleRow("dice", {"smooth": 0.0}, soft_masks, by_hand_overlap(smooth=0.0)),
    SampleRow("dice", {"dim": 1}, segments, by_hand_overlap(dim=1)),
    SampleRow(
        "dice",
        {"dim": 1, "ignore_index": 7, "class_weight": [0.0, 1.0, 2.5]},
        segments_with_holes,
        by_hand_overlap(dim=1, ignore_index=7, class_weight=[0.0, 1.0, 2.5]),
    ),
    *(
        SampleRow("tversky", options, make, by_hand_overlap(**{"smooth": 1.0, **options}))
        for make, options in (
            (masks, {"alpha": 0.3, "beta": 0.7}),
            (soft_segments, {"dim": -1, "gamma": 0.75, "smooth": 0.1}),
            (segments_with_holes, {"dim": 1, "ignore_index": 7, "class_weight": [1.0, 0.0, 2.0]}),
        )
    ),
    *(
        SampleRow("info_nce", options, vectors(2), by_hand_info_nce(**options), alone=False)
        for options in (
            {},
            {"temperature": 0.5, "symmetric": True},
            {"temperature": 2.0, "cosine": False},
        )
    ),
    SampleRow("nt_xent", {"temperature": 0.5}, vectors(2), by_hand_nt_xent(0.5), alone=False),
]
