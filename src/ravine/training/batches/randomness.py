"""Random numbers of the data, apart from those of the model."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand
from torch.utils.data import DataLoader

from ravine.data.order import mixed


class Apart:
    """Seeds the global generators for one batch of data, and puts them back after it.

    A Dataset may draw from the global generators of torch, Python and NumPy (augmentation), and so
    may a sampler. Inside the block they are decided by the numbers given; outside they are as
    they were. What the model draws then does not move the data, nor the other way round, and
    any batch can be made without those before it.

    Args:
        generators: further generators that are seeded and put back: those of a loader.
    """

    def __init__(self, generators: Iterable[torch.Generator] = ()) -> None:
        self._generators = list(generators)
        # A generator changes place in 0.2 us; copying NumPy's state takes 33 us each way, a sixth
        # of the time of a small batch.
        self._numpy: Any = np.random.MT19937(0)

    @contextlib.contextmanager
    def seeded(self, *numbers: int) -> Iterator[None]:
        """Seed everything by the numbers inside the block."""
        for_torch, for_numpy, for_python, for_loader = mixed(*numbers)
        torch_state = torch.default_generator.get_state()
        own_states = [generator.get_state() for generator in self._generators]
        python_state = random.getstate()
        numpy_generator = mtrand.get_bit_generator()
        try:
            torch.default_generator.manual_seed(for_torch)
            for generator in self._generators:
                generator.manual_seed(for_loader)
            random.seed(for_python)
            mtrand.set_bit_generator(self._numpy)
            np.random.seed(for_numpy)
            yield
        finally:
            torch.default_generator.set_state(torch_state)
            for generator, state in zip(self._generators, own_states, strict=True):
                generator.set_state(state)
            random.setstate(python_state)
            mtrand.set_bit_generator(numpy_generator)


def generators_of(loader: DataLoader[Any]) -> list[torch.Generator]:
    """Return the generators that a loader and its samplers draw from, each once."""
    owners = [loader, *samplers_of(loader)]
    found = (getattr(owner, "generator", None) for owner in owners)
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def samplers_of(loader: DataLoader[Any]) -> list[Any]:
    """Return the loader's samplers, outermost first, each once."""
    found: dict[int, Any] = {}
    waiting = [loader.sampler, loader.batch_sampler]
    while waiting:
        sampler = waiting.pop()
        if sampler is not None and id(sampler) not in found:
            found[id(sampler)] = sampler
            waiting.append(getattr(sampler, "sampler", None))
    return list(found.values())
