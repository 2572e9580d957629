"""Sharded weights: bfloat16 state is divided as its weight; what needs whole ones says so."""

from __future__ import annotations

import pytest
import torch
from ranks import in_processes
from test_distributed_optimizer import alone, model, rank_and_world, trained, whole
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import ravine.optim
from ravine.errors import ArgumentError


def in_bfloat16(name):
    rank, world = rank_and_world()
    net = fully_shard(model(), mesh=init_device_mesh("cpu", (world,)))
    optimizer = getattr(ravine.optim, name)(net.parameters(), lr=0.01, state_dtype="bfloat16")
    trained(net, optimizer, rank, world)
    for w in net.parameters():
        held = optimizer.state[w]
        state = held["exp_avg"] if "exp_avg" in held else held["momentum_buffer"]
        assert state.dtype is torch.bfloat16
        assert state.placements == w.placements
    return [whole(w) for w in net.parameters()]


def in_codes():
    mesh = init_device_mesh("cpu", (2,))
    w = nn.Parameter(distribute_tensor(torch.ones(100, 100), mesh, [Shard(0)]))
    w.grad = distribute_tensor(torch.ones(100, 100), mesh, [Shard(0)])
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.Adam([w], lr=0.1, state_dtype="int8").step()
    assert str(caught.value) == (
        "state_dtype='int8' cannot be had for a sharded weight\n"
        "  where:    a weight of shape (100, 100)\n  got:      the placements (Shard(dim=0),)\n"
        "  expected: a weight that is whole: codes and scales could not be divided anew\n"
        "  do:       use state_dtype='bfloat16'"
    )


def test_state_in_bfloat16():
    expected, _ = alone("Adam", {"lr": 0.01})
    by_muon, _ = alone("Muon", {"lr": 0.01, "ns_dtype": "float64", "state_dtype": "bfloat16"})
    for found, other in in_processes(2, both_in_bfloat16):
        # Four steps of 0.01, each from moments that are rounded in their eighth bit.
        torch.testing.assert_close(found, expected, rtol=0, atol=4 * 0.01 * 2**-7)
        # Rounding is by other bits; Newton-Schulz multiplies what is small by 3.4 a time.
        torch.testing.assert_close(other, by_muon, rtol=0, atol=4 * 0.01 * 2**-2)


def both_in_bfloat16():
    return in_bfloat16("Adam"), in_bfloat16("Muon")


def test_codes_of_8_bits_are_refused():
    in_processes(2, in_codes)
