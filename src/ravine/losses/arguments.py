"""What is checked and settled before any loss is computed."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ravine.engine import capture
from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError, TargetError, nearest

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_functorch = torch._C._functorch
# Asked for at every call: found once, not through four modules each time.
_is_compiling = torch.compiler.is_compiling
_peek = _functorch.peek_interpreter_stack
_forward_ad = torch.autograd.forward_ad


def check_reduction(
    name: str, reduction: str, normalizer: float | Tensor | None, checked: bool = True
) -> None:
    """Raise unless the reduction is known and the normalizer goes with it.

    The number of one that lies on a device is looked at only if ``checked``.
    """
    if reduction not in REDUCTIONS:
        raise ArgumentError(
            f"{name}: unknown reduction {reduction!r}",
            expected="one of " + ", ".join(REDUCTIONS),
            do=nearest(reduction, REDUCTIONS) if isinstance(reduction, str) else "",
        )
    if normalizer is None:
        return
    if reduction != "mean":
        raise ArgumentError(
            f"{name}: normalizer goes with reduction='mean' only", got=f"reduction={reduction!r}"
        )
    if isinstance(normalizer, Tensor):
        if normalizer.numel() != 1:
            raise ShapeError(
                f"{name}: normalizer must be one number", got=f"shape {tuple(normalizer.shape)}"
            )
        if not readable(normalizer) or not (checked or is_at_hand(normalizer)):
            return
        normalizer = normalizer.detach()
    elif not isinstance(normalizer, (int, float)) or isinstance(normalizer, bool):
        raise ArgumentTypeError(f"{name}: normalizer is no number", got=type(normalizer).__name__)
    if not 0 < float(normalizer) < math.inf:
        raise ArgumentError(f"{name}: normalizer must be finite and > 0", got=repr(normalizer))


def is_checked(name: str, check: str) -> bool:
    """Whether values are looked at; raise unless ``check`` is "on" or "off"."""
    if check == "on":
        return True
    if check == "off":
        return False
    raise ArgumentError(
        f"{name}: check has a value that cannot be used", got=repr(check), expected="'on' or 'off'"
    )


def refuse_capture(name: str, input: object) -> None:
    """Raise if a CUDA graph is being captured, by a loss that has to look at values."""
    if isinstance(input, Tensor) and input.is_cuda and readable(input):
        capture.refuse(
            f"{name}: what it checks",
            input.device,
            got="check='on', for which the host reads values",
            expected="check='off'",
            do="call it once outside of the graph, with its checks; give check='off' inside",
        )


def check_input(name: str, input: Tensor) -> None:
    """Raise unless the input is a float tensor."""
    if not isinstance(input, Tensor):
        raise ArgumentTypeError(
            f"{name}: the input is no tensor", got=type(input).__name__, expected="a tensor"
        )
    if input.dtype not in FLOATS:
        raise ArgumentTypeError(
            f"{name}: the input is not of a float type that losses are computed of",
            got=str(input.dtype),
            expected="float32, float64, bfloat16 or float16",
            do="call input.float()",
        )


def check_not_empty(name: str, count: int, reduction: str, normalizer: object) -> None:
    """Raise where a mean would be 0 / 0."""
    if count == 0 and reduction == "mean" and normalizer is None:
        raise ShapeError(
            f"{name}: the batch is empty, so its mean is not defined",
            do="skip the batch, or use reduction='sum' or normalizer=",
        )


def check_is_tensor(name: str, target: object, what: str = "target") -> None:
    """Raise unless the target (or another) is a tensor."""
    if not isinstance(target, Tensor):
        raise ArgumentTypeError(
            f"{name}: the {what} is no tensor", got=type(target).__name__, expected="a tensor"
        )


def check_device(name: str, what: str, tensor: Tensor, input: Tensor) -> None:
    """Raise unless a tensor is where the input is."""
    if tensor.device != input.device:
        raise ArgumentError(
            f"{name}: input and {what} are on different devices",
            got=f"input on {input.device}, {what} on {tensor.device}",
            do=f"move the {what} with .to(input.device)",
        )


def check_same_shape(name: str, input: Tensor, target: Tensor, what: str = "target") -> None:
    """Raise where broadcasting would silently compare every input with every target."""
    check_is_tensor(name, target, what)
    if target.is_complex():
        raise ArgumentTypeError(f"{name}: the {what} cannot be complex", got=str(target.dtype))
    if input.shape != target.shape:
        hint = "make the shapes equal"
        if input.squeeze().shape == target.squeeze().shape:
            hint = f"call input.squeeze(-1) or {what}.unsqueeze(-1) on the one that needs it"
        raise ShapeError(
            f"{name}: input and {what} differ in shape",
            got=f"input {tuple(input.shape)}, {what} {tuple(target.shape)}",
            expected="the same shape; nothing is broadcast",
            do=hint,
        )
    check_device(name, what, target, input)


def check_weight(
    name: str, weight: Tensor, shape: torch.Size, input: Tensor, checked: bool = True
) -> Tensor:
    """Return sample weights in the form of ``shape``: one for each element, or for each row.

    Their values are looked at only if ``checked``.

    Raises:
        ShapeError: the weight's shape is not the beginning of ``shape``.
        ArgumentError: a weight is negative, NaN or infinite, or on another device.
    """
    if not isinstance(weight, Tensor) or weight.dtype not in FLOATS:
        got = str(weight.dtype) if isinstance(weight, Tensor) else type(weight).__name__
        raise ArgumentTypeError(f"{name}: weight must be a float tensor", got=got)
    if weight.shape != shape[: weight.ndim]:
        raise ShapeError(
            f"{name}: the sample weights do not fit",
            got=f"weight {tuple(weight.shape)}",
            expected=f"{tuple(shape)}, or its first dimensions (one weight a row)",
        )
    check_device(name, "weight", weight, input)
    values = weight.detach()
    if checked and readable(weight) and values.numel():
        low, high = values.aminmax()  # NaN if any is NaN
        if not (float(low) >= 0 and float(high) < math.inf):
            wrong = (~(torch.isfinite(values) & (values >= 0))).nonzero()[0]
            raise ArgumentError(
                f"{name}: sample weights must be finite and >= 0",
                where=f"weight at {tuple(wrong.tolist())}",
                got=str(float(values[wrong.unbind()])),
            )
    return weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)).expand(shape)


def check_elements(name: str, called: str, tensor: Tensor, wrong: Tensor, expected: str) -> None:
    """Raise `TargetError` for the first element of a tensor that is wrong."""
    if bool(wrong.any()):
        position = tuple(wrong.nonzero()[0].tolist())
        what = "a target" if called == "target" else f"an element of {called}"
        raise TargetError(
            f"{name}: {what} is outside of what the loss is defined for",
            where=f"{called}[{', '.join(map(str, position))}]",
            got=repr(tensor[position].item()),
            expected=expected,
        )


def needs_gradient(*tensors: Any) -> bool:
    """Whether any of them is a tensor that a gradient is wanted for."""
    for t in tensors:  # noqa: SIM110 (any() of a generator takes a microsecond more)
        if t is not None and isinstance(t, Tensor) and t.requires_grad:
            return True
    return False


def plain_only(*tensors: Tensor | None) -> bool:
    """Whether a fused pass would not be seen by what is at work: functorch, compile, forward mode."""
    if _is_compiling() or _peek() is not None or _forward_ad._current_level >= 0:
        return True
    for t in tensors:  # noqa: SIM110 (as above)
        if t is not None and not is_usual(t):
            return True
    return False


def is_usual(tensor: Tensor) -> bool:
    """Whether a tensor has numbers, and no ways of its own."""
    kind = type(tensor)
    return (kind is Tensor or kind is torch.nn.Parameter) and not tensor.is_meta


def is_batched(tensor: Tensor) -> bool:
    """Whether a gradient stands for many at once, as in a vectorised Jacobian."""
    return _functorch.is_batchedtensor(tensor) or _functorch.is_legacy_batchedtensor(tensor)


def is_at_hand(tensor: Tensor) -> bool:
    """Whether the host can look at values without waiting for a device."""
    return tensor.is_cpu


def readable(*tensors: Tensor) -> bool:
    """Whether values can be looked at: not while compiling, under vmap, or where there are none."""
    if torch.compiler.is_compiling():
        return False
    if _functorch.peek_interpreter_stack() is not None:
        stack = _functorch.get_interpreter_stack() or []
        if any(level.key() == _functorch.TransformType.Vmap for level in stack):
            return False
    return not any(t.device.type == "meta" or hasattr(t, "fake_mode") for t in tensors)
