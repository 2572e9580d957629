# mypy: disable-error-code="no-untyped-call"
"""Checks of what goes by class: targets that are classes, and one number for each class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ravine.engine import capture
from ravine.errors import ArgumentError, ShapeError, TargetError
from ravine.losses.arguments import is_at_hand, plain_only, readable

_looked_at: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Numbers on a device that were in order, with their version and type then: looking at them waits."""


def check_classes(name: str, target: Tensor, classes: int, ignore_index: int | None) -> None:
    """Raise `TargetError` for the first class that is not in 0 .. classes - 1 or ignored."""
    wrong = (target < 0) | (target >= classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if bool(wrong.any()):
        place = int(wrong.reshape(-1).to(torch.uint8).argmax())
        ignored = "" if ignore_index is None else f", or ignore_index={ignore_index}"
        raise TargetError(
            f"{name}: a target is not one of the classes",
            where=f"row {place} of {target.numel()} ({int(wrong.sum())} such rows)",
            got=f"class {int(target.reshape(-1)[place])}",
            expected=f"0 .. {classes - 1}{ignored}",
            do="count classes from 0, or give the logits one column per class",
        )


def class_numbers(
    name: str,
    option: str,
    numbers: Any,
    scores: Tensor,
    called: str = "",
    *,
    checked: bool = True,
) -> Tensor | None:
    """Return one number >= 0 for each class of scores (..., classes), in the type of the arithmetic.

    An error about a number says ``called``, or the option's name. Numbers on a device are looked at only
    if ``checked``, and once as long as no operation of PyTorch changes them; by ``.data`` it is not seen.

    Raises:
        ShapeError: there are not as many as classes.
        ArgumentError: one is negative, NaN or infinite.
    """
    if numbers is None:
        return None
    wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
    given = numbers
    if not isinstance(numbers, Tensor):
        given = torch.as_tensor(numbers, dtype=wide, device="cpu")
    found = given.to(wide).contiguous()
    if found.shape != scores.shape[-1:]:
        raise ShapeError(
            f"{name}: {option} does not fit the classes",
            got=f"{tuple(found.shape)}",
            expected=f"({scores.shape[-1]},), one for each class",
        )
    if readable(found) and (checked or is_at_hand(given)):
        _check_numbers(name, called or option, given, found)
    if found.device != scores.device:
        capture.refuse(
            f"{name}: {option} from elsewhere",
            scores.device,
            got="a list" if given is not numbers else f"a tensor on {given.device}",
            expected=f"a tensor on {scores.device}",
            do="make it one before the capture",
        )
    pinned = found.is_cpu and scores.is_cuda and readable(found) and not found.requires_grad
    if pinned:  # a copy from other memory would be waited for
        found = found.pin_memory()
    there: Tensor = found.to(scores.device, non_blocking=pinned)
    return there


def _check_numbers(name: str, called: str, given: Tensor, found: Tensor) -> None:
    """Raise unless all are finite and >= 0; those on a device once as long as they stay the same."""
    state = None
    if not (is_at_hand(given) or plain_only(given) or given.is_inference()):
        state = given._version, found.dtype
        if _looked_at.get(given) == state:
            return
    right = (found >= 0) & torch.isfinite(found)
    if not bool(right.all()):
        place = int((~right).to(torch.uint8).argmax())
        raise ArgumentError(
            f"{name}: {called} must be finite and >= 0",
            where=f"class {place}",
            got=str(float(found[place])),
        )
    if state:
        _looked_at[given] = state
