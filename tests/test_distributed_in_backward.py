"""Optimizer in backward with weights divided over processes, and what data parallel says to it."""

from __future__ import annotations

import pytest
import torch
from ranks import in_processes
from test_distributed_optimizer import ROWS, data, model, rank_and_world
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import ravine.optim
from ravine.errors import ArgumentError


def train(net, optimizer, rank=0, world=1):
    for step in range(3):
        (net(data(step)[rank::world]).square().sum() * world / ROWS).backward()
        assert all(w.grad is None for w in net.parameters())
        optimizer.step()


def sharded():
    rank, world = rank_and_world()
    net = model()
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(net[0], mesh=mesh)
    fully_shard(net, mesh=mesh)
    optimizer = ravine.optim.AdamW(net.parameters(), lr=0.01, in_backward=True)
    train(net, optimizer, rank, world)
    return [w.full_tensor().detach() for w in net.parameters()]


def test_fully_sharded_weights_are_stepped_in_backward():
    net = model()
    train(net, ravine.optim.AdamW(net.parameters(), lr=0.01, in_backward=True))
    expected = [w.detach() for w in net.parameters()]
    for found in in_processes(2, sharded):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def data_parallel():
    net = DistributedDataParallel(model())
    optimizer = ravine.optim.AdamW(net.parameters(), lr=0.01, in_backward=True)
    net(data(0)).sum().backward()
    with pytest.raises(ArgumentError, match="a weight has a second gradient"):
        optimizer.step()


def test_data_parallel_averages_too_late():
    in_processes(2, data_parallel)
