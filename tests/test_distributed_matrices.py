"""Matrix rules on weights divided over processes give the weights of one process."""

from __future__ import annotations

import pytest
import torch
from ranks import in_processes
from test_distributed_optimizer import (
    alone,
    assert_same,
    model,
    rank_and_world,
    sharded,
    trained,
    whole,
)
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

import ravine.optim
from ravine.errors import ArgumentError, ArgumentTypeError

# 5, 3 and 1 rows do not divide among 2 or 4 processes: some hold less, some nothing.
RUNS = [
    ("Muon", {"lr": 0.05, "ns_dtype": "float64", "clip_norm": 0.5, "average": 0.9}),
    ("Muon", {"lr": 0.05, "ns_dtype": "float64", "l1": 1e-2, "cautious": True}),
    ("Shampoo", {"lr": 0.1, "momentum": 0.9, "clip_norm": 0.5, "precondition_frequency": 2}),
    ("Shampoo", {"lr": 0.1, "max_precond_dim": 4, "backend": "reference"}),
    ("Adafactor", {"lr": 0.1, "clip_norm": 0.5}),
]


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_fully_sharded_models(world):
    expected = [alone(*run) for run in RUNS]
    for found in in_processes(world, sharded, RUNS, (world,)):
        for result, one in zip(found, expected, strict=True):
            assert_same([result], one)


# -- gradients that are given -------------------------------------------------------------------------

SHAPES = [(6, 4), (6, 4), (6, 4), (3, 7), (1, 5), (4, 1), (2, 3, 4), (4, 2, 3, 3), (6,)]
SQUARE = [(4, 4), (4, 4), (4, 4), (4, 4), (4, 4), (3, 3), (1, 1), (6,)]
"""Without a null space, in which SOAP's basis is arbitrary."""

RULES = {
    "Muon": (SHAPES, {"ns_dtype": "float64"}),
    "Shampoo": (SHAPES, {"momentum": 0.9, "precondition_frequency": 2}),
    "SOAP": (SQUARE, {"precondition_frequency": 2}),
    "Adafactor": (SHAPES, {}),
}

S0, S1, R = Shard(0), Shard(1), Replicate()
PLACEMENTS = {
    (2,): [(S0,), (S1,), (R,)],
    (2, 2): [(S1, S0), (R, S0), (_StridedShard(0, split_factor=2), S0)],
}


def values(shapes, step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]


def stepped(name, place, steps=3, **options):
    """Make weights where ``place`` puts them, and give gradients to all but one at every step."""
    shapes, own = RULES[name]
    weights = [nn.Parameter(place(w)) for w in values(shapes, 99)]
    rule = getattr(ravine.optim, name)
    optimizer = rule(weights, lr=0.1, clip_norm=0.5, **{**own, **options})
    for step in range(steps):
        for k, (w, g) in enumerate(zip(weights, values(shapes, step), strict=True)):
            w.grad = None if step and k == step else place(g)
        optimizer.step()
    return optimizer, weights


def placer(mesh, placements):
    def place(tensor):
        own = tuple(S0 if p.is_shard(1) and tensor.dim() == 1 else p for p in placements)
        return distribute_tensor(tensor, mesh, own, src_data_rank=None)

    return place


def in_every_placement(shape):
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("a", "b")[: len(shape)])
    return {
        (name, str(placements)): [whole(w) for w in stepped(name, placer(mesh, placements))[1]]
        for name in RULES
        for placements in PLACEMENTS[shape]
    }


@pytest.mark.parametrize("shape", [(2,), pytest.param((2, 2), marks=pytest.mark.slow)], ids=str)
def test_every_placement(shape):
    expected = {name: [whole(w) for w in stepped(name, torch.clone)[1]] for name in RULES}
    for found in in_processes(torch.Size(shape).numel(), in_every_placement, shape):
        assert len(found) == len(RULES) * len(PLACEMENTS[shape])
        for (name, placements), weights in found.items():
            torch.testing.assert_close(
                weights, expected[name], rtol=1e-10, atol=1e-12, msg=f"{name}, {placements}: {{}}"
            )


def beside_torch():
    _, world = rank_and_world()
    place = placer(init_device_mesh("cpu", (world,)), (S0,))
    shapes = [(6, 4), (3, 7), (1, 5), (5, 5)]
    ours = [nn.Parameter(place(w)) for w in values(shapes, 99)]
    theirs = [nn.Parameter(w) for w in values(shapes, 99)]
    optimizers = ravine.optim.Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1)
    for step in range(4):
        for w, v, g in zip(ours, theirs, values(shapes, step), strict=True):
            w.grad, v.grad = place(g), g
        for optimizer in optimizers:
            optimizer.step()
    # bfloat16, and the same bits of it: each matrix is alone of its shape.
    torch.testing.assert_close([whole(w) for w in ours], [w.detach() for w in theirs])


def shares():
    """Say which matrices this process computed, and what it holds of the state."""
    _, world = rank_and_world()
    seen, newton_schulz = [], ravine.rules.muon.newton_schulz

    def noted(stack, *args):
        seen.append(tuple(stack.shape))
        return newton_schulz(stack, *args)

    mesh = init_device_mesh("cpu", (world,))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ravine.rules.muon, "newton_schulz", noted)
        stepped("Muon", placer(mesh, (S0,)), steps=1)
    optimizer, weights = stepped("Shampoo", placer(mesh, (S0,)), steps=1)
    state = optimizer.state[weights[0]]
    held = {name: tuple(state[name].to_local().shape) for name in ("precond_0", "root_1")}
    assert tuple(state["precond_0"].shape) == (6, 6)
    assert "sharded, 36 weights in this process" in optimizer.explain()
    return seen, held


def shared_memory():
    _, world = rank_and_world()
    memory = distribute_tensor(torch.ones(4, 4), init_device_mesh("cpu", (world,)), [S0])
    weights = [nn.Parameter(memory), nn.Parameter(memory)]
    for w in weights:
        w.grad = torch.ones_like(w)
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.Muon(weights, lr=0.1).step()
    assert str(caught.value) == (
        "two sharded weights share memory\n  where:    weights of shape (4, 4)\n"
        "  expected: memory of their own: a process without a part of them could not tell\n"
        "  do:       make them one parameter"
    )
    weights[0].grad = torch.ones(4, 4)
    with pytest.raises(ArgumentTypeError, match="a sharded weight has a gradient that is not"):
        ravine.optim.Muon(weights[:1], lr=0.1).step()


def in_backward():
    rank, world = rank_and_world()
    net = model()
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(net[0], mesh=mesh)
    fully_shard(net, mesh=mesh)
    options = {"lr": 0.05, "ns_dtype": "float64", "in_backward": True}
    trained(net, ravine.optim.Muon(net.parameters(), **options), rank, world)
    return [whole(w) for w in net.parameters()]


def several():
    beside_torch()
    shared_memory()
    return in_backward(), shares()


def test_the_same_bits_as_torch_shares_and_words():
    expected, _ = alone("Muon", {"lr": 0.05, "ns_dtype": "float64"})
    found = in_processes(2, several)
    for weights, _ in found:
        torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-12)
    mine, its = (share for _, share in found)
    # The first process computes what is over; of a shape with one matrix the other has none.
    shapes = {tuple(s[1:]): s for s in mine[0]}
    assert shapes[6, 4] == (2, 6, 4)
    assert its[0] == [(1, 6, 4)]
    assert mine[1] == its[1] == {"precond_0": (3, 6), "root_1": (2, 4)}
