"""Weights divided over processes: the part that is here, and over which processes a total is summed.

An elementwise step needs nothing of the other processes but totals over whole weights (for matrix
rules see `ravine.optim.shares`). `torch.distributed.tensor` is not imported before the first weight
of its kind has come.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.engine.norm import squared_norm
from ravine.errors import ArgumentTypeError

Ranks = tuple[Any, ...]
"""Process groups; a total of a weight is summed over each of them in turn. Empty: it is here."""


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is a `DTensor`, of which each process holds a part or a copy."""
    if type(tensor) in (Tensor, torch.nn.Parameter):
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Any:
    """Return the part of a tensor that this process holds, in the memory where it is."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():  # else it would be a new node of a graph
        return tensor.to_local()


def local_gradients(weights: Iterable[Any]) -> list[Any]:
    """Return the parts of the gradients, divided as their weights are (a pending sum is done)."""
    found = []
    for weight in weights:
        gradient = weight.grad
        if gradient is not None and is_sharded(weight):
            if not is_sharded(gradient):
                raise ArgumentTypeError(
                    "a sharded weight has a gradient that is not",
                    where=f"a weight of shape {tuple(weight.shape)}",
                    got=f"a {type(gradient).__name__}",
                    expected=f"a DTensor, placed {weight.placements}",
                )
            if gradient.placements != weight.placements:
                with torch.no_grad():
                    gradient = gradient.redistribute(placements=weight.placements)
        found.append(local(gradient))
    return found


def placed_as(tensor: Tensor, weight: Any) -> Tensor:
    """Return a state tensor divided over the processes as its weight is.

    A whole tensor, as a checkpoint of one process has it, must be the same in all of them.
    """
    return (
        placed_on(tensor, weight.device_mesh, weight.placements) if is_sharded(weight) else tensor
    )


def placed_on(tensor: Tensor, mesh: Any, placements: Any) -> Tensor:
    """Return a tensor divided over the processes of a mesh; see `placed_as`."""
    placed: Any = tensor
    with torch.no_grad():
        if is_sharded(tensor):
            if placed.placements == placements and placed.device_mesh == mesh:
                return tensor
            placed = placed.full_tensor()
        distribute = sys.modules["torch.distributed.tensor"].distribute_tensor
        made: Tensor = distribute(placed, mesh, placements, src_data_rank=None)
        return made


def divided(
    part: Tensor, mesh: Any, placements: Any, shape: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Return the tensor of which this process holds a part, in the memory where that is."""
    from torch.distributed.tensor import DTensor

    whole = torch.Size(shape), tuple(stride)
    with torch.no_grad():
        made: Tensor = DTensor.from_local(
            part, mesh, placements, run_check=False, shape=whole[0], stride=whole[1]
        )
    return made


def divided_as(part: Tensor, like: Any) -> Tensor:
    """Return the tensor divided as another, of which this process holds a part; or the part."""
    if not is_sharded(like):
        return part
    return divided(part, like.device_mesh, like.placements, like.shape, like.stride())


def placement_of(tensor: Any) -> tuple[Any, ...]:
    """Return how a tensor lies over processes: the mesh and the placements, or nothing."""
    return (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else ()


def summed_over(weight: Any, otherwise: Ranks = ()) -> Ranks:
    """Return the groups over whose processes a weight is divided: not those that hold copies."""
    if not is_sharded(weight):
        return otherwise
    mesh = weight.device_mesh
    for placement in weight.placements:
        if placement.is_partial():
            raise ArgumentTypeError(
                "a weight is a sum that is still to be made",
                where=f"a weight of shape {tuple(weight.shape)}",
                got=f"the placements {weight.placements}",
                expected="Shard or Replicate",
            )
    return tuple(
        mesh.get_group(dimension)
        for dimension, placement in enumerate(weight.placements)
        if not placement.is_replicate()
    )


def added_up(values: Sequence[float], over: Sequence[Ranks]) -> list[float]:
    """Sum each value over its groups: one message for each group, whatever the number of values.

    Every process of a group has to ask for the same values in the same order.
    """
    total = torch.tensor(values, dtype=torch.float64)
    for group in dict.fromkeys(group for ranks in over for group in ranks):
        mine = [k for k, ranks in enumerate(over) if group in ranks]
        device = "cuda" if torch.distributed.get_backend(group) == "nccl" else "cpu"
        message = total[mine].to(device)
        torch.distributed.all_reduce(message, group=group)
        total[mine] = message.cpu()
    return total.tolist()


def total(parts: Iterable[tuple[Ranks, float]], otherwise: Ranks = ()) -> float:
    """Sum the parts of one number, each over its groups.

    A process without any weight of its own still takes part where ``otherwise`` says so.
    """
    by_ranks: dict[Ranks, float] = {otherwise: 0.0}
    for ranks, value in parts:
        by_ranks[ranks] = by_ranks.get(ranks, 0.0) + value
    if by_ranks.keys() == {()}:
        return by_ranks[()]
    return sum(added_up([*by_ranks.values()], [*by_ranks]))


def gradient_norm(weights: Iterable[Any], otherwise: Ranks = ()) -> float:
    """Return the norm of the gradients of weights, over all processes that hold a part."""
    have = [weight for weight in weights if weight.grad is not None]
    squares = [squared_norm([g]) for g in local_gradients(have)]
    ranks = (summed_over(weight, otherwise) for weight in have)
    return math.sqrt(total(zip(ranks, squares, strict=True), otherwise))


def ranks_of_owner(optimizer: object) -> Ranks:
    """Return the ranks among which `ZeroRedundancyOptimizer` divides weights, if it is the caller.

    It makes one ordinary optimizer in each process, of the weights that this process steps, and tells
    it nothing of the others; a norm over all weights has to know them.
    """
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    if module is None:
        return ()
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_locals.get("self") is optimizer:
        frame = frame.f_back  # the optimizer's own class, and classes of the user's under it
    owner = frame.f_locals.get("self")
    if not isinstance(owner, module.ZeroRedundancyOptimizer):
        return ()
    return (owner.process_group,)
