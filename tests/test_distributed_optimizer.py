"""Data-parallel and sharded training in 2 and 4 processes gives the weights of one process."""

from __future__ import annotations

import pytest
import torch
from ranks import in_processes
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import ravine
from ravine.engine.functions import abs, model_sum, sqrt, tensor_mean, tensor_norm

STEPS, ROWS = 4, 8


@ravine.update_rule(numbers={"past": 0.5}, shared={"size": "start"})
def measured(w, g, m, *, lr, past, size, start=1.0):
    """Numbers of each weight and of the model: everything that has to be added up."""
    m = 0.9 * m + g
    past = 0.5 * past + tensor_norm(w)
    size = sqrt(model_sum(m * m)) + 0.1 * size
    return w - lr * m * past / (tensor_norm(m) + tensor_mean(abs(g)) + size), m, past, size


# 5, 3 and 1 rows do not divide among 2 or 4 processes: some hold less, some nothing.
RUNS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "clip_norm": 0.5}),
    ("Adam", {"lr": 0.01, "l1": 1e-3, "l2": 1e-3, "clip_norm": 0.05, "amsgrad": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "average": 0.9, "clip_norm": 0.5}),
    ("AdamW", {"lr": 0.01, "decay": "independent", "clip_norm": 0.05, "backend": "reference"}),
    ("RMSprop", {"lr": 0.01, "l1": 1e-2, "l1_proximal": True}),
    ("measured", {"lr": 0.1, "clip_norm": 0.5}),
    ("measured", {"lr": 0.1, "clip_norm": 0.5, "backend": "reference"}),
]


def model():
    torch.manual_seed(3)
    parts = [nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3), nn.LayerNorm(3), nn.Linear(3, 1)]
    return nn.Sequential(*parts).double()


def data(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(ROWS, 7, dtype=torch.float64, generator=generator)


def trained(net, optimizer, rank=0, world=1, steps=range(STEPS)):
    """Train on this process's rows; return the norms of the gradient that the optimizer told."""
    norms = []
    for step in steps:
        optimizer.zero_grad()
        rows = data(step)[rank::world]
        (net(rows).square().sum() * world / ROWS).backward()
        norms.append(optimizer.gradient_norm())
        optimizer.step()
    return norms


def made(net, name, options):
    rule = measured if name == "measured" else getattr(ravine.optim, name)
    return rule(net.parameters(), **options)


def whole(tensor):
    full = getattr(tensor, "full_tensor", None)
    return (tensor if full is None else full()).detach().clone()


def weights_and_averages(net, optimizer):
    weights = [whole(w) for w in net.parameters()]
    if optimizer.defaults["average"] is not None:
        with optimizer.averaged():
            weights += [whole(w) for w in net.parameters()]
    return weights


def alone(name, options, steps=range(STEPS)):
    net = model()
    optimizer = made(net, name, options)
    norms = trained(net, optimizer, steps=steps)
    return weights_and_averages(net, optimizer), norms


def assert_same(found, expected):
    for (ws, norms), (vs, other) in zip(found, [expected] * len(found), strict=True):
        torch.testing.assert_close(ws, vs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(norms, other, rtol=1e-10, atol=0)


def rank_and_world():
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


# -- in the processes -------------------------------------------------------------------------------


def data_parallel(runs):
    results = []
    for name, options in runs:
        net = DistributedDataParallel(model())
        optimizer = made(net, name, options)
        norms = trained(net, optimizer, *rank_and_world())
        results.append((weights_and_averages(net, optimizer), norms))
    return results


def sharded(runs, shape):
    names = ("copies", "parts")[-len(shape) :]
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    results = []
    for name, options in runs:
        net = model()
        fully_shard(net[0], mesh=mesh)
        fully_shard(net, mesh=mesh)
        optimizer = made(net, name, options)
        norms = trained(net, optimizer, *rank_and_world())
        for w in net.parameters():
            for state in optimizer.state[w].values():
                assert state.ndim == 0 or state.placements == w.placements
        results.append((weights_and_averages(net, optimizer), norms))
    return results


# -- here ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_data_parallel(world):
    expected = [alone(*run) for run in RUNS]
    for found in in_processes(world, data_parallel, RUNS):
        for result, one in zip(found, expected, strict=True):
            assert_same([result], one)


SLOW_MESHES = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((4,), (2, 2))]


@pytest.mark.parametrize("shape", [(2,), *SLOW_MESHES], ids=str)
def test_fully_sharded(shape):
    expected = [alone(*run) for run in RUNS]
    for found in in_processes(torch.Size(shape).numel(), sharded, RUNS, shape):
        for result, one in zip(found, expected, strict=True):
            assert_same([result], one)
