# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Looks at all class targets once, on a GPU: is one out of range, and what does the mean divide by?

In plain PyTorch these are ten launches, and each answer is waited for by itself.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Targets that a program looks at at once."""

PROGRAMS = 128
"""Programs at most: as many as there are cores, more or less."""


@triton.jit(do_not_specialize=["rows", "share", "ignored"])
def kernel(
    target, factor, class_weight, found, rows, share, classes, ignored,
    FACTORED: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write how many classes are out of range among a ``share`` of the rows, and their weights' sum."""
    program = tl.program_id(0).to(tl.int64)
    wrong = tl.zeros((BLOCK,), tl.float64)
    amount = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, share, BLOCK):
        row = program * share + start + tl.arange(0, BLOCK)
        real = row < rows
        k = tl.load(target + row, mask=real, other=0)
        counts = real & (k != ignored)
        known = counts & (k >= 0) & (k < classes)
        one = tl.where(known, 1.0, 0.0).to(tl.float64)
        if FACTORED:
            one *= tl.load(factor + row, mask=known, other=0.0).to(tl.float64)
        if WEIGHTED:
            one *= tl.load(class_weight + k, mask=known, other=0.0).to(tl.float64)
        amount += one
        wrong += tl.where(counts, 1.0, 0.0) - tl.where(known, 1.0, 0.0)
    tl.store(found + 2 * program, tl.sum(wrong, axis=0))
    tl.store(found + 2 * program + 1, tl.sum(amount, axis=0))


def scan(
    target: Tensor,
    classes: int,
    ignored: int,
    factor: Tensor | None,
    class_weight: Tensor | None,
) -> Tensor:
    """Return, on the device, two float64: how many classes are out of range, and the weights' sum.

    Arguments as in `target_scan.scan`. The sum is always in the same order.
    """
    rows = target.shape[0]
    blocks = triton.cdiv(rows, BLOCK)
    programs = max(1, min(blocks, PROGRAMS))
    found = torch.empty((programs, 2), dtype=torch.float64, device=target.device)
    with torch.cuda.device(target.device) if target.is_cuda else nullcontext():
        kernel[(programs,)](
            target,
            target if factor is None else factor,
            target if class_weight is None else class_weight,
            found,
            rows,
            triton.cdiv(blocks, programs) * BLOCK,
            classes,
            ignored,
            FACTORED=factor is not None,
            WEIGHTED=class_weight is not None,
            BLOCK=BLOCK,
            num_warps=8,
            enable_fp_fusion=True,
        )
    return found[0] if programs == 1 else found.sum(0)
