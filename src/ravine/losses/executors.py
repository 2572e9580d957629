"""Which kernels run on the rows of scores."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ravine.engine.choice import unavailable

Kind = Literal["cpu", "gpu", ""]


def kind_of(tensor: Tensor) -> Kind:
    """Return what can run kernels on a tensor; warn once where that cannot be used."""
    kind: Kind = "cpu" if tensor.is_cpu else "gpu" if tensor.is_cuda else ""
    return "" if not kind or unavailable(kind) else kind


def executor(rows: Any, scores: Tensor) -> Kind:
    """Return what runs the kernel of a row loss on these scores, empty where it has none."""
    kind = kind_of(scores)
    return "" if kind == "gpu" and not rows.on_gpu else kind
