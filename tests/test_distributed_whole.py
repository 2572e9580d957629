"""Sharded weights with bfloat16 state, which is divided as its weight."""

from __future__ import annotations

import torch
from ranks import in_processes
from test_distributed_optimizer import alone, model, rank_and_world, trained, whole
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import ravine.optim


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
