"""The losses that are timed, as torch has them or as one writes them there, with their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
"""Of input, target and, where the loss has some, further tensors."""

ELEMENTS: dict[str, tuple[int, ...]] = {"64": (64,), "8.4M": (1 << 23,)}
ROWS: dict[str, tuple[int, ...]] = {
    f"{rows}x{classes}": (rows, classes)
    for rows, classes in ((64, 10), (8192, 10), (8192, 1000), (2048, 32768))
}
SEGMENTS: dict[str, tuple[int, ...]] = {"4x19x256x512": (4, 19, 256, 512)}
MASKS: dict[str, tuple[int, ...]] = {"8x1x1024x1024": (8, 1, 1024, 1024)}
VECTORS: dict[str, tuple[int, ...]] = {"16384x512": (16384, 512)}
SIZES: dict[str, tuple[int, ...]] = {**ELEMENTS, **ROWS, **SEGMENTS, **MASKS, **VECTORS}
"""The shapes of the inputs."""


@dataclass(frozen=True)
class Peer:
    """What gives the same number as a loss of ours.

    Attributes:
        loss: torch's function, or the formula in torch's operations.
        tensors: targets for an input of a shape, on a device, and what else the loss takes.
        sizes: the inputs that it is timed on.
        options: of our loss.
    """

    loss: Loss
    tensors: Callable[[tuple[int, ...], str], tuple[Tensor, ...]]
    sizes: tuple[str, ...] = tuple(ELEMENTS)
    options: Mapping[str, Any] = field(default_factory=dict)


def _numbers(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return (torch.rand(shape, device=device),)


def _positive(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return (torch.rand(shape, device=device) + 0.1,)


def _with_variance(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return torch.randn(shape, device=device), torch.rand(shape, device=device) + 0.1


def _labels(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return (torch.rand(shape, device=device).round(),)


def _signs(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return (2 * torch.rand(shape, device=device).round() - 1,)


def _classes(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return (torch.randint(shape[1], shape[:1], device=device),)


def _segments(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return (torch.randint(shape[1], (shape[0], *shape[2:]), device=device),)


def _dice(x: Tensor, y: Tensor) -> Tensor:
    # As it is written most often.
    p, mask = x.softmax(1), F.one_hot(y, x.shape[1]).movedim(-1, 1).to(x.dtype)
    places = tuple(range(2, x.ndim))
    right, whole = (p * mask).sum(places), p.sum(places) + mask.sum(places)
    return (1 - (2 * right + 1) / (whole + 1)).mean()


def _masks(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return ((torch.rand(shape, device=device) < 0.5).float(),)


def _tversky(x: Tensor, y: Tensor) -> Tensor:
    p, mask = x.sigmoid().flatten(1), y.flatten(1)
    right = (p * mask).sum(1) + 1
    wrong = 0.3 * (p * (1 - mask)).sum(1) + 0.7 * ((1 - p) * mask).sum(1)
    return (1 - right / (right + wrong)).mean()


def _vectors(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    return torch.randn(shape, device=device), torch.randn(shape, device=device)


def _log_cosh(x: Tensor, y: Tensor) -> Tensor:
    # As in Keras: log(cosh(e)) itself is infinite from e = 90 on.
    e = x - y
    return (e + F.softplus(-2 * e) - 0.6931471805599453).mean()


def _quantile(x: Tensor, y: Tensor) -> Tensor:
    e = y - x
    return torch.maximum(0.5 * e, -0.5 * e).mean()


def _kl_divergence(x: Tensor, y: Tensor) -> Tensor:
    return F.kl_div(x, y, reduction="sum") / x.numel()  # "mean" warns that it will change


def _gamma(x: Tensor, y: Tensor) -> Tensor:
    return (x + y * torch.exp(-x)).mean()


def _tweedie(x: Tensor, y: Tensor) -> Tensor:
    return (2 * torch.exp(0.5 * x) + 2 * y * torch.exp(-0.5 * x)).mean()


def _hinge(x: Tensor, y: Tensor) -> Tensor:
    return F.relu(1 - y * x).mean()  # clamp_min has the slope 1 at the kink


def _squared_hinge(x: Tensor, y: Tensor) -> Tensor:
    return (F.relu(1 - y * x) ** 2).mean()


def _perceptron(x: Tensor, y: Tensor) -> Tensor:
    return (-y * x).clamp_min(0).mean()  # relu has the slope 0 at the kink


def _focal(x: Tensor, y: Tensor) -> Tensor:
    # As in torchvision.
    p = torch.sigmoid(x)
    missed = p * (1 - y) + (1 - p) * y
    factor = 0.25 * y + 0.75 * (1 - y)
    each = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    return (factor * missed**2 * each).mean()


def _asymmetric(x: Tensor, y: Tensor) -> Tensor:
    # As its authors publish it: p and its margin, logarithms that are kept from 0.
    p = torch.sigmoid(x)
    kept = (1 - p + 0.05).clamp(max=1)
    each = y * torch.log(p.clamp(min=1e-8)) + (1 - y) * torch.log(kept.clamp(min=1e-8))
    right = p * y + kept * (1 - y)
    return -(each * (1 - right) ** (y + 4.0 * (1 - y))).mean()


LOSSES: dict[str, Peer] = {
    "mse": Peer(F.mse_loss, _numbers),
    "mae": Peer(F.l1_loss, _numbers),
    "huber": Peer(F.huber_loss, _numbers),
    "smooth_l1": Peer(F.smooth_l1_loss, _numbers),
    "log_cosh": Peer(_log_cosh, _numbers),
    "quantile": Peer(_quantile, _numbers),
    "poisson": Peer(F.poisson_nll_loss, _numbers),
    "gaussian_nll": Peer(F.gaussian_nll_loss, _with_variance),
    "gamma": Peer(_gamma, _positive),
    "tweedie": Peer(_tweedie, _positive),
    "hinge": Peer(_hinge, _signs),
    "squared_hinge": Peer(_squared_hinge, _signs),
    "perceptron": Peer(_perceptron, _signs),
    "binary_cross_entropy": Peer(F.binary_cross_entropy_with_logits, _labels),
    "focal": Peer(_focal, _labels),
    "asymmetric": Peer(_asymmetric, _labels),
    "kl_divergence": Peer(_kl_divergence, _numbers),
    "cross_entropy": Peer(F.cross_entropy, _classes, tuple(ROWS)),
    "multi_margin": Peer(F.multi_margin_loss, _classes, tuple(ROWS)),
    "dice": Peer(_dice, _segments, tuple(SEGMENTS), {"dim": 1}),
    "tversky": Peer(_tversky, _masks, tuple(MASKS), {"alpha": 0.3, "beta": 0.7}),
    "triplet": Peer(F.triplet_margin_loss, _vectors, tuple(VECTORS)),
}
"""The losses that are timed, by their name in `ravine.losses`."""
