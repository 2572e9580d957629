# mypy: disable-error-code="no-untyped-call"
"""Three sums over the places of each sample and class, of which dice and Tversky losses are made.

    right = sum p y        excess = sum p (1 - y)        missed = sum (1 - p) y

with p the softmax over the classes. They are one node of autograd: a kernel reads the logits once on the way
there, and on the way back reads them once more and writes their gradient. Nothing else of their size is made,
but a copy of logits whose memory is in another order than samples, classes, places, or samples, places,
classes, as in channels_last; that with probabilities as targets, too.

Plain PyTorch operations take over where a kernel would not be seen: higher derivatives, transforms, forward
mode, torch.compile, a target that needs a gradient; and on a GPU for more classes than fit into a tile
(`class_overlap_gpu.widest`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ravine.engine.element_types import number_type
from ravine.losses import buffers, executors
from ravine.losses.arguments import is_batched, needs_gradient, plain_only
from ravine.losses.kernels import class_overlap_cpu


class Masks(NamedTuple):
    """Logits with the masks that are looked for in them."""

    input: Tensor
    """(N, ...), of a float type."""
    target: Tensor
    """Integer classes, without the dimension of the classes, or probabilities of the input's shape."""
    counts: Tensor | None
    """(N,) bool: which samples are looked at, the sums of the others are 0; None if all are."""
    dim: int
    """The dimension of the classes in the input, not the first."""
    ignored: int
    """Places of this class are left out, whatever their logits are."""


def class_overlaps(
    input: Tensor, target: Tensor, counts: Tensor | None, dim: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return right, excess and missed, each (N, K), in float32, or float64 for float64 logits.

    Arguments as in `Masks`. A class that is out of range is that of no class.
    """
    if not target.is_floating_point():
        target = target.to(torch.int64)  # a uint8 would be compared with ignore_index as a uint8
    if counts is not None:
        counts = counts.contiguous()
    masks = Masks(input, target, counts, dim, ignore_index)
    if plain_only(input, target, counts) or needs_gradient(target) or not _kernels(input, dim):
        p, miss, y, _ = _shares(masks)
        return (p * y).sum(1), (p * (1 - y)).sum(1), (miss * y).sum(1)
    right, excess, missed = ClassOverlaps.apply(*masks).unbind(1)
    return right, excess, missed


class ClassOverlaps(torch.autograd.Function):
    """The sums of `Masks`, (N, 3, K)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        masks = Masks(*given)
        ctx.save_for_backward(masks.input, masks.target, masks.counts)
        ctx.rest = masks.dim, masks.ignored
        logits, target = _by_class(masks)
        found: Tensor = _kernels(logits, 1).overlap_sums(
            logits, target, masks.ignored, masks.counts
        )
        return found

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> Any:
        input, target, counts = ctx.saved_tensors
        dim, ignored = ctx.rest
        masks = Masks(input, target, counts, dim, ignored)
        right, excess, missed = arriving.unbind(1)
        # This way back may itself be differentiated, or see many gradients at once (vmap).
        if torch.is_grad_enabled() or is_batched(arriving):
            found = _slopes(masks, right - missed, excess)
        else:
            logits, target = _by_class(masks)
            gradient = buffers.take(logits, logits.dtype)
            slopes = torch.stack([right - missed, excess], 1)
            _kernels(logits, 1).overlap_slopes(logits, target, ignored, slopes, gradient, counts)
            found = gradient.view(input.movedim(dim, 1).shape).movedim(1, dim)
        return found, None, None, None, None


def _kernels(input: Tensor, dim: int) -> Any:
    """Return the module whose kernels run on logits, or None."""
    kind = executors.kind_of(input)
    if kind == "gpu":
        from ravine.losses.kernels import class_overlap_gpu  # which imports Triton

        few = input.shape[dim] <= class_overlap_gpu.widest(input.dtype)
        return class_overlap_gpu if few else None
    return class_overlap_cpu if kind else None


def _by_class(masks: Masks) -> tuple[Tensor, Tensor]:
    """Return logits (N, K, P), and classes (N, P) or probabilities (N, K, P), all contiguous.

    But logits that are contiguous as (N, P, K) stay so, where targets are classes.
    """
    input, target, dim = masks.input.detach(), masks.target, masks.dim
    logits = input.movedim(dim, 1)
    samples, classes = logits.shape[:2]
    places = logits.shape[2:].numel()
    if target.is_floating_point():
        wide = number_type(logits.dtype)
        target = target.movedim(dim, 1).reshape(samples, classes, places).to(wide)
    else:
        target = target.reshape(samples, places)
        rows = input.movedim(dim, -1)
        if rows.is_contiguous():
            return rows.reshape(samples, places, classes).transpose(1, 2), target.contiguous()
    return logits.reshape(samples, classes, places).contiguous(), target.contiguous()


def _shares(masks: Masks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return p, 1 - p to the last digit, and the target, each (samples, places, classes).

    All of them are 0 where a place is left out; the last one says which are not.
    """
    input, target, counts, dim, ignored = masks
    x = input.movedim(dim, -1)
    x = x if x.dtype is torch.float64 else x.float()
    classes = x.shape[-1]
    if target.is_floating_point():
        y = target.movedim(dim, -1)
        kept = torch.ones_like(y[..., :1], dtype=torch.bool)
    else:
        y = target[..., None] == torch.arange(classes, device=x.device)
        kept = (target != ignored)[..., None]
    if counts is not None:
        kept = kept & counts.reshape(-1, *(1,) * (x.ndim - 1))
    x = torch.where(kept, x, 0.0)
    largest = x.argmax(-1, keepdim=True)
    top = x.gather(-1, largest)
    e = torch.where((x == top) & x.isinf(), 0.0, x - top).exp()
    others = e.scatter(-1, largest, 0.0).sum(-1, keepdim=True)
    miss = (1 - e + others) / (1 + others)  # 1 - e of the largest is 0
    p = e / (1 + others)
    shape = (len(x), -1, classes) if x.numel() else (len(x), 0, classes)
    p, miss, y = (torch.where(kept, z, 0.0).reshape(shape) for z in (p, miss, y.to(x.dtype)))
    return p, miss, y, kept.reshape(*shape[:2], 1)


def _slopes(masks: Masks, own: Tensor, rest: Tensor) -> Tensor:
    """Return the gradient by the input; own and rest (N, K) are slopes by p where y is 1, and 0."""
    p, _, y, kept = _shares(masks)
    h = y * own[:, None] + (1 - y) * rest[:, None]
    slopes = torch.where(kept, p * (h - (p * h).sum(-1, keepdim=True)), 0.0)
    moved = masks.input.movedim(masks.dim, -1).shape
    return slopes.reshape(moved).movedim(-1, masks.dim).to(masks.input.dtype)
