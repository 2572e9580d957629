"""Max-norm: no unit's incoming weights are longer than a limit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ravine.errors import ArgumentError
from ravine.regularize.part import Part

_OUTPUTS_SECOND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class MaxNorm(Part):
    """See `ravine.regularize.max_norm`.

    Args:
        limit: of the length of a unit's incoming weights, > 0.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._weights: list[tuple[nn.Parameter, int]] = []

    def begin(self, model: nn.Module) -> None:
        found: dict[int, tuple[nn.Parameter, int]] = {}
        for module in model.modules():
            dim = 1 if isinstance(module, _OUTPUTS_SECOND) else 0
            for weight in module.parameters(recurse=False):
                if weight.ndim > 1 and weight.requires_grad:
                    if dim == 1 and _own(weight) is not weight:
                        raise ArgumentError(
                            "max_norm cannot limit units that are divided over processes",
                            where=type(module).__name__,
                            got="a weight whose units lie in its second dimension, and whose first "
                            "is divided (parallel='sharded')",
                            do="use parallel='data', or leave max_norm out",
                        )
                    found[id(weight)] = weight, dim
        self._weights = list(found.values())

    def after_step(self, step: int) -> None:
        with torch.no_grad():
            for weight, dim in self._weights:
                own = _own(weight)
                own.copy_(torch.renorm(own, 2, dim, self.limit))


def _own(weight: Tensor) -> Tensor:
    """Return what of a weight is in this process: whole rows, where it is sharded."""
    found: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
    return found
