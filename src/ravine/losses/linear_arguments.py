"""What is checked of a linear head before any product is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.errors import ArgumentTypeError, ShapeError
from ravine.losses.arguments import check_device, check_input, check_is_tensor

NAME = "linear_cross_entropy"


def check_head(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return hidden, weight and bias as autocast would have them, or raise."""
    check_input(NAME, hidden)
    for what, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None and what == "bias":
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ArgumentTypeError(f"{NAME}: {what} must be a float tensor", got=got)
        check_device(NAME, what, tensor, hidden)
    _check_shapes(hidden, weight, bias)
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and hidden.dtype is not torch.float64:
        cast = torch.get_autocast_dtype(kind)
        return hidden.to(cast), weight.to(cast), None if bias is None else bias.to(cast)
    for what, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype is not hidden.dtype:
            raise ArgumentTypeError(
                f"{NAME}: hidden and {what} are of different types",
                got=f"hidden {hidden.dtype}, {what} {tensor.dtype}",
                expected="one type; nothing is converted outside of autocast",
                do=f"convert one with .to(), or call it under torch.autocast({kind!r})",
            )
    return hidden, weight, bias


def _check_shapes(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if hidden.ndim == 0 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        turned = (
            hidden.ndim > 0
            and weight.ndim == 2
            and hidden.shape[-1] == weight.shape[0]
            and "give weight.T: the classes are its first dimension, as in torch.nn.Linear"
        )
        raise ShapeError(
            f"{NAME}: hidden and weight do not fit each other",
            got=f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}",
            expected="hidden (..., width), weight (classes, width)",
            do=turned or "",
        )
    classes = weight.shape[0]
    if classes == 0:
        raise ShapeError(f"{NAME}: there are no classes", got=f"weight {tuple(weight.shape)}")
    if bias is not None and bias.shape != (classes,):
        raise ShapeError(
            f"{NAME}: bias does not fit the classes",
            got=f"bias {tuple(bias.shape)}",
            expected=f"({classes},), one for each class",
        )


def check_head_target(hidden: Tensor, weight: Tensor, target: Tensor) -> bool:
    """Return whether the target is probabilities, or raise where it does not fit hidden."""
    check_is_tensor(NAME, target)
    if target.is_complex() or target.dtype is torch.bool:
        raise ArgumentTypeError(
            f"{NAME}: targets cannot be of type {target.dtype}",
            expected="integer classes, or probabilities in a float type",
        )
    soft = target.is_floating_point()
    shape, classes = hidden.shape[:-1], weight.shape[0]
    if target.shape != (torch.Size((*shape, classes)) if soft else shape):
        raise ShapeError(
            f"{NAME}: hidden and target do not fit each other",
            got=f"hidden {tuple(hidden.shape)}, target {tuple(target.shape)} {target.dtype}",
            expected=f"integer classes {tuple(shape)}, or probabilities {(*shape, classes)}",
        )
    check_device(NAME, "target", target, hidden)
    return soft
