"""Tensors of which a process holds a part: as a state has them, and back in their places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ravine.optim.sharding import divided, is_sharded, placed_as

Place = tuple[int, ...]
"""A number for each dimension: an offset, or a size."""


class Slices(ABC):
    """A tensor whose values can be had in slices, without the rest of it.

    Attributes:
        shape: that of the whole tensor.
    """

    shape: Place

    @abstractmethod
    def read(self, offsets: Place, sizes: Place) -> Tensor:
        """Return the slice of these sizes that begins at the offsets."""

    @abstractmethod
    def alone(self) -> Tensor:
        """Return the tensor where nothing says how it is to be divided."""


@dataclass(frozen=True)
class Part(Slices):
    """What this process holds of a tensor that is divided over processes.

    Attributes:
        offsets: where it begins in the whole tensor.
        tensor: the values.
        mesh, placements, stride: how the whole lies over the processes, as its `DTensor` says it.
    """

    shape: Place
    offsets: Place
    tensor: Tensor
    mesh: Any
    placements: Any
    stride: Place

    @classmethod
    def of(cls, tensor: Any) -> Part:
        """Return the part of a `DTensor` that is here; its values are in the same memory."""
        offsets, _ = _here(tensor)
        local = tensor.detach().to_local()
        lies = (tensor.device_mesh, tensor.placements, tuple(tensor.stride()))
        return cls(tuple(tensor.shape), offsets, local, *lies)

    def holding(self, tensor: Tensor) -> Part:
        """Return the same part with other values."""
        return replace(self, tensor=tensor)

    def real(self) -> Part:
        """Return a part of complex numbers as one of pairs, in a dimension more."""
        pairs = torch.view_as_real(self.tensor)
        return replace(self, shape=(*self.shape, 2), offsets=(*self.offsets, 0), tensor=pairs)

    def read(self, offsets: Place, sizes: Place) -> Tensor:
        if (offsets, sizes) != (self.offsets, tuple(self.tensor.shape)):
            raise ValueError(f"the slice of {sizes} at {offsets} is in another process")
        return self.tensor

    def alone(self) -> Tensor:
        return divided(self.tensor, self.mesh, self.placements, self.shape, self.stride)


@dataclass(frozen=True)
class Complex(Slices):
    """Complex numbers that are kept as pairs, in a dimension more."""

    pairs: Slices

    @property
    def shape(self) -> Place:  # type: ignore[override]
        return self.pairs.shape[:-1]

    def read(self, offsets: Place, sizes: Place) -> Tensor:
        return torch.view_as_complex(self.pairs.read((*offsets, 0), (*sizes, 2)))

    def alone(self) -> Tensor:
        return torch.view_as_complex(self.pairs.alone())


def mapped(state: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested dictionaries, lists and tuples with everything else in them changed.

    >>> mapped({"a": [1, (2,)]}, lambda value: value + 1)
    {'a': [2, (3,)]}
    """
    if isinstance(state, Mapping):
        return {name: mapped(value, change) for name, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(mapped(value, change) for value in state)
    return change(state)


def parted(state: Any) -> Any:
    """Return a state with the `Part` that is here of every divided tensor."""
    return mapped(state, lambda value: Part.of(value) if is_sharded(value) else value)


def placed(state: Any, like: Any) -> Any:
    """Return a state with tensors divided as those under the same names are.

    Of what is kept in slices, only those that belong here are read where ``like`` has a divided
    tensor, and everything where it has none: no `Slices` are left.

    Args:
        state: nested dictionaries, lists and tuples.
        like: dictionaries that have some of the names.

    Raises:
        ValueError: a tensor has another shape.
    """
    if isinstance(state, Mapping):
        names = like if isinstance(like, Mapping) else {}
        return {name: placed(value, names.get(name)) for name, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(placed(value, None) for value in state)
    if isinstance(state, Slices):
        return state.alone() if not is_sharded(like) else _part_as(state, like)
    if isinstance(state, Tensor) and is_sharded(like):
        return placed_as(state.to(like.device), like)
    return state


def _part_as(source: Slices, like: Any) -> Tensor:
    if source.shape != tuple(like.shape):
        raise ValueError(f"a tensor of shape {source.shape} in the place of {tuple(like.shape)}")
    local = source.read(*_here(like)).to(like.device)
    return divided(local, like.device_mesh, like.placements, source.shape, like.stride())


def _here(tensor: Any) -> tuple[Place, Place]:
    """Return where the part of a `DTensor` that is here begins in it, and its sizes."""
    (chunk,) = tensor.__create_chunk_list__()  # what torch.distributed.checkpoint asks of it
    return tuple(chunk.offsets), tuple(chunk.sizes)
