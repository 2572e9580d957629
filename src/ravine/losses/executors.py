"""Which kernels run on the rows of scores."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ravine.engine import cpu
from ravine.engine.choice import warn_once

Kind = Literal["cpu", "gpu", ""]


def kind_of(tensor: Tensor) -> Kind:
    """Return what can run kernels on a tensor; warn once where that cannot be used."""
    if tensor.is_cpu:
        kind: Kind = "cpu"
        missing = cpu.unavailable()
    elif tensor.is_cuda:
        from ravine.engine import gpu

        kind = "gpu"
        missing = gpu.unavailable()
    else:
        return ""
    if missing:
        warn_once(f"{missing}: Ravine computes with plain PyTorch operations, which is slower")
    return "" if missing else kind


def executor(rows: Any, scores: Tensor) -> Kind:
    """Return what runs the kernel of a row loss on these scores, empty where it has none."""
    kind = kind_of(scores)
    return "" if kind == "gpu" and not rows.on_gpu else kind
