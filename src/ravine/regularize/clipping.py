"""Gradient clipping for optimizers that do not have it; `ravine.optim` clips in its step."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ravine.engine import cpu
from ravine.engine.choice import is_dense
from ravine.engine.element_types import supports
from ravine.engine.norm import SQUARES
from ravine.errors import NonFiniteError
from ravine.regularize.checks import positive, tensors


def clip_norm_(
    parameters: nn.Module | Tensor | Iterable[Tensor],
    max_norm: float,
    *,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale gradients in place so that their common norm is at most ``max_norm``.

    Equation:
        norm = sqrt(sum g^2) over all parameters
        g <- g min(1, max_norm / (norm + 1e-6))

    Args:
        parameters: a model, a tensor or tensors; those without a gradient are passed over.
        max_norm: finite, > 0.
        error_if_nonfinite: raise, and leave the gradients as they are, if the norm is not finite.

    Returns:
        The norm before clipping, a 0-dim tensor (0 where there is no gradient).

    Raises:
        ArgumentError: max_norm out of its bounds. NonFiniteError: if asked for.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([3.0, 4.0])
        >>> clip_norm_([w], 1.0), w.grad
        (tensor(5.), tensor([0.6000, 0.8000]))

    Differs from: torch's ``clip_grad_norm_`` has the same numbers to rounding (the norm is summed
    in float64 here on the CPU, so that float16 gradients overflow only where their norm does) and
    multiplies by 1 where nothing is to be clipped. optax's ``clip_by_global_norm`` has no 1e-6.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """
    limit = positive("clip_norm_: max_norm", max_norm)
    listed = tensors("clip_norm_", parameters)
    gradients = [p.grad for p in listed if p.grad is not None]
    if not gradients or not all(map(_readable, gradients)) or cpu.unavailable():
        try:
            return torch.nn.utils.clip_grad_norm_(
                listed, limit, error_if_nonfinite=error_if_nonfinite
            )
        except RuntimeError as error:
            if error_if_nonfinite and "non-finite" in str(error):
                raise _non_finite("not finite") from error
            raise
    norm = math.sqrt(_squared_norm(gradients))
    if error_if_nonfinite and not math.isfinite(norm):
        raise _non_finite(str(norm))
    factor = limit / (norm + 1e-6)
    if not factor >= 1:  # NaN spreads, as in torch
        with torch.no_grad():
            torch._foreach_mul_(gradients, factor)
    return torch.tensor(norm, dtype=gradients[0].dtype, device=gradients[0].device)


def clip_value_(parameters: nn.Module | Tensor | Iterable[Tensor], max_value: float) -> None:
    """Limit every element of the gradients to [-max_value, max_value], in place.

    Args:
        parameters: a model, a tensor or tensors; those without a gradient are passed over.
        max_value: finite, > 0, in the units of the gradient.

    Raises:
        ArgumentError: max_value out of its bounds.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([3.0, -0.5])
        >>> clip_value_([w], 1.0)
        >>> w.grad
        tensor([ 1.0000, -0.5000])

    Differs from: torch's ``clip_grad_value_`` and optax's ``clip`` do the same; Keras has
    ``clipvalue`` on its optimizers.
    """
    limit = positive("clip_value_: max_value", max_value)
    torch.nn.utils.clip_grad_value_(tensors("clip_value_", parameters), limit)


def _readable(gradient: Tensor) -> bool:
    return (
        gradient.device.type == "cpu"
        and type(gradient) is Tensor
        and gradient.layout is torch.strided
        and supports(gradient.dtype)
        and is_dense(gradient)
    )


_held = threading.local()


def _squared_norm(gradients: list[Tensor]) -> float:
    """Return the sum of squares in float64, in one compiled pass for each type."""
    total = 0.0
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        chosen = [gradient for gradient in gradients if gradient.dtype is dtype]
        launch = _launch(dtype, tuple(gradient.numel() for gradient in chosen))
        launch.set_addresses(0, [gradient.data_ptr() for gradient in chosen])
        launch.run()
        total += launch.totals()[0]
    return total


def _launch(dtype: torch.dtype, sizes: tuple[int, ...]) -> cpu.Launch:
    """Return the launch for gradients of these sizes; a thread keeps its last few."""
    held: dict[Any, cpu.Launch] = _held.__dict__.setdefault("launches", {})
    key = dtype, sizes
    launch = held.pop(key, None)
    if launch is None:
        types = {"g": dtype, "square": torch.float64}
        kernel = cpu.compiled(SQUARES.specialise({}), types, ("square",))
        launch = cpu.Launch(kernel, sizes, arrays=1, slots=0, totals=1)
    held[key] = launch
    while len(held) > 8:
        held.pop(next(iter(held)))
    return launch


def _non_finite(norm: str) -> NonFiniteError:
    return NonFiniteError(
        "the norm of the gradient is not finite",
        where="clip_norm_",
        got=norm,
        do="look for the first layer whose output is not finite, or lower the learning rate",
    )
