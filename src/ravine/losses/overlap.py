"""How much a predicted mask and the true one overlap: what dice and Tversky losses are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError
from ravine.losses import executors
from ravine.losses.arguments import (
    check_device,
    check_elements,
    check_input,
    check_is_tensor,
    plain_only,
    readable,
)
from ravine.losses.bounds import INTEGER, INTEGER_OR_NONE, NOT_NEGATIVE, Bound
from ravine.losses.class_arguments import check_classes, class_numbers
from ravine.losses.class_overlap import class_overlaps
from ravine.losses.kernels.target_scan import scan
from ravine.losses.mask_overlap import all_shares, mask_overlaps
from ravine.losses.samples import SampleLoss, sample_loss


def mask_loss(
    module: str, bounds: Mapping[str, Bound] | None = None
) -> Callable[[Callable[..., Tensor]], SampleLoss]:
    """Make a `SampleLoss` of the function below, whose tensors are logits and the true masks.

    Args:
        module: the name of its `torch.nn.Module`.
        bounds: those of the hyperparameters that only this one has, beside smooth, dim,
            class_weight and ignore_index.
    """
    own = bounds or {}
    every = {"smooth": NOT_NEGATIVE, "dim": INTEGER_OR_NONE, "ignore_index": INTEGER}
    return sample_loss(
        module,
        check=check_masks,
        check_values=check_mask_values,
        bounds={**own, **every},
        prepares=True,
    )


def tversky_distance(
    input: Tensor,
    target: Tensor,
    counts: Tensor | None,
    *,
    alpha: float,
    beta: float,
    smooth: float,
    gamma: float = 1.0,
    dim: int | None,
    class_weight: Any,
    ignore_index: int,
) -> Tensor:
    """Return (1 - Tversky index)^gamma of each sample, the mean over classes where there are some.

    1 - index is computed as wrong / (right + wrong + smooth), which has every digit of an almost
    perfect prediction. If there is nothing to be found and nothing was, with smooth 0, it is 0.
    """
    if dim is None:
        right, excess, missed = mask_overlaps(input, target, counts, ignore_index)
    else:
        right, excess, missed = class_overlaps(input, target, counts, dim, ignore_index)
    wrong = alpha * excess + beta * missed
    whole = right + wrong + smooth
    found = torch.where(whole == 0, 0.0, wrong / torch.where(whole == 0, 1.0, whole))
    if gamma != 1:
        perfect = found == 0  # a root has no slope there
        found = torch.where(perfect, 0.0, torch.where(perfect, 1.0, found) ** gamma)
    if dim is None:
        return found
    # Checked in `check_masks`.
    shares = class_numbers("tversky", "class_weight", class_weight, right, checked=False)
    return found.mean(1) if shares is None else (found * shares).sum(1) / shares.sum()


def check_masks(name: str, tensors: tuple[Tensor, ...], values: Mapping[str, Any]) -> torch.Size:
    """Return (N,); raise unless input and target fit each other."""
    input, target = tensors
    check_input(name, input)
    check_is_tensor(name, target)
    check_device(name, "target", target, input)
    if target.is_complex():
        raise ArgumentTypeError(f"{name}: the target cannot be complex", got=str(target.dtype))
    dim, shape = values["dim"], input.shape
    got = f"input {tuple(shape)}, target {tuple(target.shape)} {target.dtype}"
    if input.ndim < 2:
        raise ShapeError(f"{name}: input is a batch of masks", got=got, expected="(N, ...)")
    if dim is None:
        if values["class_weight"] is not None:
            raise ArgumentError(f"{name}: class_weight goes with dim=, for classes")
        if target.shape != shape:
            raise ShapeError(
                f"{name}: input and target differ in shape",
                got=got,
                expected="the same shape; nothing is broadcast",
                do="for integer classes say which dimension of the input they are: dim=1",
            )
        return shape[:1]
    if not -input.ndim <= dim < input.ndim or dim in (0, -input.ndim):
        raise ShapeError(
            f"{name}: there is no dimension {dim} for the classes",
            got=got,
            expected="one after the first, which is the samples",
        )
    dim %= input.ndim
    wanted = shape if target.is_floating_point() else shape[:dim] + shape[dim + 1 :]
    if target.shape != wanted:
        raise ShapeError(
            f"{name}: input and target do not fit each other",
            got=got,
            expected=f"a target {tuple(wanted)}; the classes are dimension {dim} of the input",
        )
    if shape[dim] == 0:
        raise ShapeError(f"{name}: there are no classes", got=got)
    _shares_of_classes(name, input, values, checked=False)
    return shape[:1]


def _shares_of_classes(
    name: str, input: Tensor, values: Mapping[str, Any], checked: bool
) -> Tensor | None:
    given = values["class_weight"]
    if given is None:
        return None
    scores = input.movedim(values["dim"], -1)
    return class_numbers(name, "class_weight", given, scores, checked=checked)


def check_mask_values(name: str, tensors: tuple[Tensor, ...], values: Mapping[str, Any]) -> None:
    """Raise for the first class out of range, a share that is not in 0 .. 1, class weights that are none."""
    input, target = tensors[0], tensors[1].detach()
    shares = _shares_of_classes(name, input, values, checked=True)
    if shares is not None and readable(shares) and not bool(shares.sum() > 0):
        raise ArgumentError(f"{name}: class_weight is 0 for every class")
    if not readable(target) or target.dtype is torch.bool:
        return
    if values["dim"] is not None and not target.is_floating_point():
        classes, ignored = input.shape[values["dim"]], values["ignore_index"]
        if not _all_known(target, classes, ignored):
            check_classes(name, target, classes, ignored)
        return
    alone = values["dim"] is None
    ignored = values["ignore_index"] if alone else 0  # which is a share
    if target.is_floating_point() and all_shares(target, ignored):
        return
    wrong = ~((target >= 0) & (target <= 1))
    if alone:
        wrong &= target != ignored
    check_elements(name, "target", target, wrong, "0, 1 or a number between")


def _all_known(target: Tensor, classes: int, ignored: int) -> bool:
    """Whether one look at a target has found no class out of range."""
    kind = "" if plain_only(target) else executors.kind_of(target)
    if not kind:
        return False
    flat = target.reshape(-1).to(torch.int64)
    if kind == "cpu":
        return not scan(flat, classes, ignored, None, None, torch.float32)[0]
    from ravine.losses.kernels import target_scan_gpu  # which imports Triton

    return not target_scan_gpu.scan(flat, classes, ignored, None, None)[0].item()
