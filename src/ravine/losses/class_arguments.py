"""Checks of what goes by class: targets that are classes, and one number for each class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ravine.errors import ArgumentError, ShapeError, TargetError
from ravine.losses.arguments import readable


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
    name: str, option: str, numbers: Any, scores: Tensor, called: str = ""
) -> Tensor | None:
    """Return one number >= 0 for each class of scores (..., classes), in the type of the arithmetic.

    An error about a number says ``called``, or the option's name.

    Raises:
        ShapeError: there are not as many as classes.
        ArgumentError: one is negative, NaN or infinite.
    """
    if numbers is None:
        return None
    wide = torch.float64 if scores.dtype is torch.float64 else torch.float32
    found = torch.as_tensor(numbers, dtype=wide, device=scores.device).contiguous()
    if found.shape != scores.shape[-1:]:
        raise ShapeError(
            f"{name}: {option} does not fit the classes",
            got=f"{tuple(found.shape)}",
            expected=f"({scores.shape[-1]},), one for each class",
        )
    if readable(found) and not bool(((found >= 0) & torch.isfinite(found)).all()):
        place = int((~((found >= 0) & torch.isfinite(found))).to(torch.uint8).argmax())
        raise ArgumentError(
            f"{name}: {called or option} must be finite and >= 0",
            where=f"class {place}",
            got=str(float(found[place])),
        )
    return found
