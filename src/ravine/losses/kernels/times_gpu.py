# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Multiplies a tensor by a number on a GPU, unless that is 1: the host does not wait to find out.

Where it is 1, as of a loss that nothing multiplies, a program reads it and ends. A multiplication in PyTorch
would read and write the whole tensor all the same, half as many bytes as the pass that made it.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Elements that a program takes at once: 16 bytes a thread twice, of float32."""

PROGRAMS = 1024
"""Programs at most, by reasoning: some eight for each multiprocessor are quick to start and to end."""


@triton.jit
def _multiply(values, times, left, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    inside = None
    if MASKED:
        inside = at < left
    x = tl.load(values + at, mask=inside)
    tl.store(values + at, x * times.to(x.dtype), mask=inside)


@triton.jit(do_not_specialize=["count", "share"])
def kernel(values, number, count, share, BLOCK: tl.constexpr):
    """Multiply a ``share`` of so many elements, unless the number is 1."""
    times = tl.load(number)
    if times != 1.0:
        first = tl.program_id(0).to(tl.int64) * share
        for start in range(0, share, BLOCK):
            offset = tl.multiple_of(first + start, BLOCK)
            left = count - offset
            # A mask that is not known to be whole keeps loads narrow.
            if left >= BLOCK:
                _multiply(values + offset, times, left, False, BLOCK)
            elif left > 0:
                _multiply(values + offset, times, left, True, BLOCK)


def multiply(tensor: Tensor, number: Tensor) -> None:
    """Multiply in place.

    Args:
        tensor: float32 or float64, without gaps in memory.
        number: one float, on the same device.
    """
    count = tensor.numel()
    blocks = triton.cdiv(count, BLOCK)
    if not blocks:
        return
    share = triton.cdiv(blocks, PROGRAMS) * BLOCK
    with torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext():
        kernel[(triton.cdiv(count, share),)](
            tensor, number, count, share, BLOCK=BLOCK, num_warps=4, enable_fp_fusion=True
        )
