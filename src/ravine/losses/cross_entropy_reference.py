"""Cross-entropy over rows in plain PyTorch: what the kernels are tested against, on any device.

The same numbers as `cross_entropy_cpu`, differentiable as often as one likes (except that no slope
reaches an infinite logit). It keeps the digits of an almost certain row by adding up the
exponentials of all classes but the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.losses.class_arguments import check_classes


def check_targets(targets: Tensor, classes: int, ignore_index: int = -100) -> Tensor | None:
    """Return which rows count, or None if all do.

    Raises:
        TargetError: a class is neither in 0 .. classes - 1 nor ``ignore_index``.
    """
    if targets.numel() == 0:
        return None
    low, high = (int(bound) for bound in torch.aminmax(targets))
    ignorable = low <= ignore_index <= high
    if low >= 0 and high < classes and not ignorable:
        return None
    kept = targets != ignore_index
    check_classes("cross_entropy", targets, classes, ignore_index)
    return kept


def rows_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """Return the loss of each row; arguments as in `cross_entropy_cpu.rows_loss_and_gradient`."""
    classes = logits.shape[1]
    x = logits.double() if logits.dtype == torch.float64 else logits.float()
    weights = x.new_ones(classes) if class_weight is None else class_weight
    factor = x.new_ones(len(x)) if sample_weight is None else sample_weight
    soft = targets.dim() == 2
    if not soft:
        factor = torch.where(targets == ignore_index, 0.0, factor)
    counts = factor != 0
    x = torch.where(counts[:, None], x, 0.0)
    largest = x.argmax(1, keepdim=True)
    top = x.gather(1, largest)
    d = torch.where((x == top) & x.isinf(), 0.0, x - top)
    others = d.exp().scatter(1, largest, 0.0).sum(1)

    smooth = weights * (label_smoothing / classes)
    a = torch.where(x == -torch.inf, 0.0, smooth)
    if soft:
        a = a + weights * ((1 - label_smoothing) * targets)
    else:
        # Not one_hot, which reads targets on the CPU and is not there for vmap.
        hot = torch.arange(classes, device=x.device) == torch.where(counts, targets, 0)[:, None]
        a = a + weights * ((1 - label_smoothing) * hot.to(x.dtype))
    # Only 0 times infinity is left out: the slope by a target that is 0 is not.
    inner = (a * torch.where((a == 0) & d.isinf(), 0.0, d)).sum(1)
    loss = a.sum(1) * others.log1p() - inner
    return torch.where(counts, factor * loss, 0.0)
