"""Products of half-precision matrices that are added up in float32 and stay float32."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ravine.losses.fused import HALVES


def serve(tensor: Tensor) -> bool:
    """Whether matrices like this one can be multiplied so: on a GPU, from torch 2.10 on."""
    return tensor.is_cuda and tensor.dtype in HALVES and _added_up(tensor.device, tensor.dtype)


@functools.cache
def _added_up(device: torch.device, dtype: torch.dtype) -> bool:
    # From torch 2.8 on a product may be float32, from 2.10 on what it is added to as well.
    with torch.autocast(device.type, enabled=False), torch.inference_mode(False):
        square = torch.ones(2, 2, dtype=dtype, device=device)
        try:
            add(square.float(), square, square)
        except (TypeError, RuntimeError):
            return False
    return True


def put(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Overwrite a float32 matrix with left times right."""
    torch.mm(left, right, out_dtype=torch.float32, out=out)


def add(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left times right to a float32 matrix."""
    if len(out) == 1:  # which torch treats as a bias, and one of half precision in some versions
        out += torch.mm(left, right, out_dtype=torch.float32)
    else:
        torch.addmm(out, left, right, out_dtype=torch.float32, out=out)
