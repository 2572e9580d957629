"""Remedies of batch normalisation, whose running statistics are not those of the batches."""

from __future__ import annotations

from torch import nn

from ravine.diagnose.program import Change

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _averaged(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.momentum = 0.01


def _groups(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if isinstance(child, BATCH_NORMS):
                parent._modules[key] = nn.GroupNorm(1, child.num_features, eps=child.eps)


AVERAGED = Change("average the running statistics longer (momentum 0.01)", model=_averaged)
GROUPS = Change("normalise each row by itself (GroupNorm)", model=_groups)
