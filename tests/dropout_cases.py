"""The types of dropout and a layer of one mask, which its tests share."""

from __future__ import annotations

import torch

from ravine.regularize import Dropout

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def fixed(seed: int = 3):
    """The layer as a function that always draws its first mask."""
    layer = Dropout(0.3, seed=seed)

    def function(x):
        layer.reseed(seed)
        return layer(x)

    return function
