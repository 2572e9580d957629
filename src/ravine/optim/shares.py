"""Stacks of sharded weights: each process holds its part of all, and computes some of them whole.

A stack of n weights of one shape is a `DTensor` of one dimension more. Dividing it anew along that
dimension gives each process about n / processes whole matrices, and dividing it back again the parts
that it holds of all: `torch.distributed.tensor` sends what has to go to others. State of another
shape than the weight (a preconditioner) is divided by its rows, over the processes that the weight
is divided over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.optim.sharding import divided, is_sharded, local, placed_on


class Undivided:
    """How a variable lies in memory that is whole in this process."""

    def part(self, value: Tensor) -> Tensor:
        """Return what this process holds of a value."""
        return value

    def item(self, part: Tensor) -> Tensor:
        """Return the whole variable of which this process holds a part."""
        return part

    def stack(self, parts: Tensor) -> Tensor:
        """Return the stack of the variable of many weights, counted by dimension 0."""
        return parts


class Share(Undivided):
    """How a variable of one weight is divided over processes.

    Args:
        weight: the `DTensor`.
        like: what has the shape of the variable, and its strides.
    """

    def __init__(self, weight: Any, like: Tensor) -> None:
        from torch.distributed.tensor import Shard

        self.mesh = weight.device_mesh
        self.placements = weight.placements
        if like.shape != weight.shape:
            self.placements = tuple(
                one if one.is_replicate() or not like.dim() else Shard(0) for one in self.placements
            )
        self.shape, self.stride = tuple(like.shape), tuple(like.stride())

    def part(self, value: Tensor) -> Tensor:
        part: Tensor = local(placed_on(value, self.mesh, self.placements))
        return part

    def item(self, part: Tensor) -> Tensor:
        return divided(part, self.mesh, self.placements, self.shape, self.stride)

    def stack(self, parts: Tensor) -> Tensor:
        return _stacked(parts, self.mesh, [_behind(one) for one in self.placements], self.shape)


def share_of(weight: Tensor, like: Tensor | None = None) -> Undivided:
    """Return how a variable of a weight lies; one of the weight's own shape without ``like``."""
    if not is_sharded(weight):
        return Undivided()
    return Share(weight, weight if like is None else like)


def empty_state(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return memory for state of any shape, divided as that of a sharded weight is."""
    like = local(weight).new_empty(()).expand(tuple(shape))
    share = share_of(weight, torch.empty(tuple(shape), device="meta"))
    return share.item(share.part(like))


def whole(stack: Any, rows: Sequence[int] | None = None) -> Tensor:
    """Return the weights of a stack, or some, that this process computes with: [matrices, ...].

    Of a divided stack they are a share of the matrices, each whole; every process has to ask.
    """
    parts = local(stack)
    chosen: Tensor = parts if rows is None else parts[rows]
    if not is_sharded(stack):
        return chosen
    with torch.no_grad():
        asked: Any = _stacked(chosen, stack.device_mesh, stack.placements, stack.shape[1:])
        mine: Tensor = asked.redistribute(placements=_by_matrices(stack)).to_local()
    return mine


def write(stack: Any, rows: Sequence[int] | None, new: Tensor) -> None:
    """Write to a stack, or to some of its weights, what was computed of those `whole` returned."""
    target = local(stack)
    if is_sharded(stack):
        count = len(target) if rows is None else len(rows)
        shape, mesh = (count, *stack.shape[1:]), stack.device_mesh
        with torch.no_grad():
            made: Any = divided(new, mesh, _by_matrices(stack), shape, contiguous(shape))
            new = made.redistribute(placements=stack.placements).to_local()
    if rows is None:
        target.copy_(new)
    else:
        target[rows] = new


def none_of(stack: Any) -> Tensor:
    """Return no weights, as `whole` does where there are fewer than processes."""
    empty: Tensor = local(stack).new_empty((0, *stack.shape[1:]))
    return empty


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor without gaps."""
    return torch.empty(tuple(shape), device="meta").stride()


def _stacked(parts: Tensor, mesh: Any, placements: Any, shape: Sequence[int]) -> Tensor:
    shape = (len(parts), *shape)
    return divided(parts, mesh, placements, shape, contiguous(shape))


def _by_matrices(stack: Any) -> list[Any]:
    from torch.distributed.tensor import Shard

    return [one if one.is_replicate() else Shard(0) for one in stack.placements]


def _behind(placement: Any) -> Any:
    """Return a placement where a dimension has come in front."""
    if placement.is_replicate():
        return placement
    factor = getattr(placement, "split_factor", None)
    moved = {} if factor is None else {"split_factor": factor}  # of FSDP over tensor parallel
    return type(placement)(placement.dim + 1, **moved)
