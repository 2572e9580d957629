"""The order of the rows in an epoch: decided by the seed and the epoch's number, nothing else.

Nothing has to be saved for it, and the order of a later epoch is known without the ones before.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mixed(*numbers: int) -> list[int]:
    """Return four seeds of 32 bits that the numbers decide together, each >= 0.

    The numbers go through NumPy's ``SeedSequence``, whose hash lets every bit of each number change
    every bit of the seeds and is the same on every machine and in every version: neighbouring
    seeds and epochs have orders that have nothing in common, and ``seed + epoch`` is not
    mistaken for ``seed + 1, epoch - 1``.

    >>> mixed(0, 1) != mixed(1, 0)
    True
    >>> mixed(3, 7) == mixed(3, 7)
    True

    Source: O'Neill, "Developing a seed_seq alternative" (2015); NumPy, NEP 19.
    """
    return [int(word) for word in np.random.SeedSequence(numbers).generate_state(4)]


def epoch_order(rows: int, seed: int, number: int) -> Tensor:
    """Return the order of an epoch: a permutation of ``range(rows)``, int64, on the CPU.

    Args:
        rows: how many rows there are.
        seed: of the run.
        number: of the epoch, from 1.

    >>> sorted(epoch_order(5, seed=0, number=1).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = torch.Generator().manual_seed(mixed(seed, number)[0])
    return torch.randperm(rows, generator=generator)
