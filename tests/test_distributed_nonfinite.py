"""A gradient that is not finite in one process: all leave the step out, by either way."""

from __future__ import annotations

import math

import pytest
import torch
from ranks import in_processes
from test_distributed_optimizer import data, model, rank_and_world
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import ravine.optim


def here(weights):
    return [w.to_local().detach().clone() for w in weights]


def one_bad_part():
    rank, world = rank_and_world()
    net = fully_shard(model(), mesh=init_device_mesh("cpu", (world,)))
    optimizer = ravine.optim.Adam(net.parameters(), lr=0.1, skip_nonfinite=True)
    scaled = ravine.optim.Adam(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    net(data(0)).sum().backward()
    optimizer.step()
    count = sum(w.numel() for w in net.parameters())
    mine = sum(w.to_local().numel() for w in net.parameters())
    assert mine < count
    told = (
        f"{count} weights, torch.float64: cpu kernel of adam: tensors on the CPU, compiled by LLVM"
    )
    assert optimizer.explain() == f"8 tensors, {told}; sharded, {mine} weights in this process"
    assert f"state {2 * 8 * mine}B" in repr(optimizer)
    before = here(net.parameters())
    if rank == 0:  # weight 2 has one row in the last process of two
        [*net.parameters()][2].grad.to_local()[0, 0] = math.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1
    scaler.scale(torch.ones(()))
    scaler.step(scaled)
    scaler.update()
    assert scaled.skipped_steps == 1
    assert scaler.get_scale() == 4.0
    torch.testing.assert_close(here(net.parameters()), before, rtol=0, atol=0)
    for w in net.parameters():  # squares of these overflow: finite all the same
        w.grad = torch.full_like(w, 1e200)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert int(optimizer.state[w]["step"]) == 2


def test_one_bad_part_of_a_sharded_weight():
    in_processes(2, one_bad_part)


def one_bad_weight_of_another_process():
    ws = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = ZeroRedundancyOptimizer(ws, ravine.optim.SGD, lr=1.0, skip_nonfinite=True)
    for w in ws:
        w.grad = torch.ones(3)
    ws[0].grad[1] = math.nan
    optimizer.step()
    assert optimizer.optim.skipped_steps == 1
    return [w.detach() for w in ws]


def test_one_bad_weight_among_divided_ones():
    for found in in_processes(2, one_bad_weight_of_another_process):
        torch.testing.assert_close(found, [torch.ones(3)] * 2, rtol=0, atol=0)


# -- a norm over two kinds of division ----------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(7, 6).double(), nn.Linear(6, 3).double()

    def forward(self, x):
        return self.second(self.first(x).tanh())


def rows_and_columns(steps):
    """Tensors divided in one direction of the mesh, whole models in the other."""
    rank, _ = rank_and_world()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    net = Pair()
    plan = {"first": ColwiseParallel(), "second": RowwiseParallel()}
    parallelize_module(net, mesh["tensor"], plan)
    fully_shard(net, mesh=mesh["data"])
    optimizer = ravine.optim.AdamW(net.parameters(), lr=0.1, clip_norm=0.05)
    norms = [
        trained_step(net, optimizer, data(step)[rank // 2 :: 2], 2, len(data(step)))
        for step in steps
    ]
    return [w.full_tensor().detach() for w in net.parameters()], norms


def trained_step(net, optimizer, rows, world, count):
    optimizer.zero_grad()
    (net(rows).square().sum() * world / count).backward()
    norm = optimizer.gradient_norm()
    optimizer.step()
    return norm


@pytest.mark.slow
def test_tensor_parallel_and_fully_sharded():
    net = Pair()
    optimizer = ravine.optim.AdamW(net.parameters(), lr=0.1, clip_norm=0.05)
    norms = [trained_step(net, optimizer, data(step), 1, len(data(step))) for step in range(3)]
    expected = [w.detach() for w in net.parameters()], norms
    for found in in_processes(4, rows_and_columns, range(3)):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def a_sum_to_be_made():
    """A weight that both processes hold, whose gradient each has a part of."""
    rank, _ = rank_and_world()
    mesh = init_device_mesh("cpu", (2,))
    copy = nn.Parameter(DTensor.from_local(torch.ones(2), mesh, [Replicate()]))
    part = nn.Parameter(DTensor.from_local(torch.ones(2), mesh, [Shard(0)]))
    plain = nn.Parameter(torch.ones(2))
    from torch.distributed.tensor import Partial

    given = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[rank]
    copy.grad = DTensor.from_local(given, mesh, [Partial()])
    part.grad = DTensor.from_local(given, mesh, [Shard(0)])
    plain.grad = torch.tensor([2.0, 1.0])
    optimizer = ravine.optim.SGD([copy, part, plain], lr=1.0, clip_norm=1.0)
    norm = optimizer.gradient_norm()
    optimizer.step()
    assert copy.grad.placements == (Partial(),)
    return norm, copy.full_tensor().detach(), part.full_tensor().detach(), plain.detach()


def test_copies_are_counted_once_and_pending_sums_are_made():
    norm = math.sqrt(4**2 + 6**2 + (1 + 4 + 9 + 16) + (4 + 1))
    by = norm + 1e-6
    expected = (
        norm,
        1 - torch.tensor([4.0, 6.0]) / by,
        1 - torch.tensor([1.0, 2.0, 3.0, 4.0]) / by,
        1 - torch.tensor([2.0, 1.0]) / by,
    )
    for found in in_processes(2, a_sum_to_be_made):
        torch.testing.assert_close(found, expected)
