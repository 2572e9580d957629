"""L1 and L2 for optimizers that do not have them; `ravine.optim` has them in its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError
from ravine.regularize.checks import not_negative, tensors
from ravine.regularize.decay_groups import DECAYED, place


def l1(weights: nn.Module | Tensor | Iterable[Tensor], strength: float) -> Tensor:
    """Return the L1 penalty of weights, to be added to a loss.

    Equation:
        strength sum |w|, gradient strength sign(w), which is 0 at w = 0

    Args:
        weights: tensors of any shape and float type; or a model, whose biases, norm parameters and
            frozen weights are left out (`decay_groups` says which).
        strength: lambda, finite, >= 0, in units of the loss over units of the weights.

    Returns:
        A 0-dim tensor in the widest type of the weights, float32 at least.

    Raises:
        ArgumentError: strength out of its bounds, or no weights.

    Example:
        >>> l1([torch.tensor([1.0, -2.0]), torch.tensor(3.0)], 0.1)
        tensor(0.6000)

    Differs from: the same in Keras (`regularizers.L1`); torch and optax have none. The subgradient
    hardly ever gives exact zeros; `soft_threshold_` and ``ravine.optim`` with ``l1_proximal`` do.

    Source: Tibshirani 1996.
    """
    return _penalty("l1", weights, strength, torch.abs)


def l2(weights: nn.Module | Tensor | Iterable[Tensor], strength: float) -> Tensor:
    """Return the L2 penalty of weights, to be added to a loss.

    Equation:
        strength sum |w|^2, gradient 2 strength w

    Args:
        weights: tensors of any shape and float type; or a model, whose biases, norm parameters and
            frozen weights are left out (`decay_groups` says which).
        strength: lambda, finite, >= 0, in units of the loss over the square of the weights'.

    Returns:
        A 0-dim tensor in the widest type of the weights, float32 at least.

    Raises:
        ArgumentError: strength out of its bounds, or no weights.

    Example:
        >>> l2(nn.Linear(2, 1), 0.0)
        tensor(0., grad_fn=<MulBackward0>)

    Differs from: the same in Keras (`regularizers.L2`); torch's ``weight_decay`` has gradient
    lambda w: a factor of two. optax's ``l2_loss`` carries a half.

    Source: Hoerl & Kennard 1970.
    """
    return _penalty("l2", weights, strength, torch.square)


def soft_threshold_(
    weights: nn.Module | Tensor | Iterable[Tensor], strength: float, *, lr: float
) -> None:
    """Take the proximal step of the L1 penalty in place, after the step of an optimizer.

    Equation:
        w <- sign(w) max(|w| - lr strength, 0)

    Args:
        weights: real float tensors, or a model, of which the same are left out as in `l1`.
        strength: lambda, finite, >= 0.
        lr: the learning rate of the step before, finite, >= 0.

    Raises:
        ArgumentError: strength or lr out of its bounds, or no weights.

    Example:
        >>> w = torch.tensor([0.05, -2.0, float("nan")])
        >>> soft_threshold_(w, 1.0, lr=0.1)
        >>> w
        tensor([ 0.0000, -1.9000,     nan])

    This solves the penalised problem under gradient descent. Under Adam and its kin, whose step is
    scaled element by element, the threshold is still lr strength for every element, not scaled.

    Differs from torch, optax and Keras, which have none.

    Source: Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009, equation 1.5.
    """
    threshold = not_negative("soft_threshold_: strength", strength)
    threshold *= not_negative("soft_threshold_: lr", lr)
    with torch.no_grad():
        for weight in _chosen("soft_threshold_", weights):
            shrunk = weight - threshold * weight.sign()
            weight.copy_(torch.where(weight.abs() <= threshold, 0.0, shrunk))


def _penalty(
    owner: str,
    weights: nn.Module | Tensor | Iterable[Tensor],
    strength: float,
    size: Callable[[Tensor], Tensor],
) -> Tensor:
    strength = not_negative(f"{owner}: strength", strength)
    chosen = _chosen(owner, weights)
    sums = []
    for weight in chosen:
        real = torch.view_as_real(weight) if weight.is_complex() and owner == "l2" else weight
        half = real.dtype in (torch.float16, torch.bfloat16)
        sums.append(size(real.float() if half else real).sum().to(chosen[0].device))
    total = sums[0]
    for value in sums[1:]:
        total = total + value
    return total * strength


def _chosen(owner: str, weights: nn.Module | Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(weights, nn.Module):
        chosen: list[Tensor] = [p.parameter for p in place(weights) if p.group == DECAYED]
    else:
        chosen = tensors(owner, weights)
    if not chosen:
        raise ArgumentError(
            f"{owner}: there are no weights",
            got=f"{type(weights).__name__} without weights that can be decayed",
            do="print ravine.regularize.describe_groups(model)"
            if isinstance(weights, nn.Module)
            else "an iterator can be used once only: give a list",
        )
    return chosen
