"""State in 8 bits of sharded weights: the part of each process in codes, saved in full."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import in_processes
from test_distributed_optimizer import rank_and_world, whole
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import ravine.optim
from ravine.errors import ArgumentError
from ravine.optim import lean_state

SHAPES = {
    "uneven": (101, 77),
    "a row": (1, 5000),
    "columns": (64, 90),
    "copies": (70, 70),
    "small": (9,),
}
RUNS = [("Adam", {"lr": 0.01}), ("Muon", {"lr": 0.05, "ns_dtype": "float32"})]


def placed(name, tensor):
    """Divided by rows (of one there is none in other processes), by columns, or not at all."""
    if not torch.distributed.is_initialized():
        return tensor.clone()
    how = {"columns": Shard(1), "copies": Replicate()}.get(name, Shard(0))
    return distribute_tensor(tensor, mesh(), [how], src_data_rank=None)


@cache
def mesh():
    return init_device_mesh("cpu", (torch.distributed.get_world_size(),))


def net():
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.randn(s, generator=generator) for name, s in SHAPES.items()}
    return nn.ParameterDict({n: nn.Parameter(placed(n, v)) for n, v in values.items()})


def trained(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for name, w in model.items():
            noise = torch.randn(SHAPES[name], generator=generator)
            w.grad = w.detach() + placed(name, 0.3 * noise)
        optimizer.step()


def made(model, name, options, state_dtype="int8"):
    return getattr(ravine.optim, name)(model.parameters(), state_dtype=state_dtype, **options)


def moment(state):
    name = "exp_avg" if "exp_avg" in state or "exp_avg_codes" in state else "momentum_buffer"
    return name, lean_state.find(state, name, "signed")


def in_codes(folder):
    """Train with codes, save, and go on from what this process alone has saved."""
    results = []
    for name, options in RUNS:
        model = net()
        optimizer = made(model, name, options)
        trained(model, optimizer, range(10))
        for key, w in model.items():
            state = optimizer.state[w]
            known, _ = moment(state)
            if key == "small":
                assert f"{known}_codes" not in state
                continue
            codes, scales = state[f"{known}_codes"], state[f"{known}_scales"]
            assert codes.placements == w.placements and codes.dtype is torch.uint8
            assert len(scales) == -(-w.to_local().numel() // 256)
        saved = optimizer.state_dict()
        again, beside = copy.deepcopy(model), copy.deepcopy(optimizer)
        other = made(again, name, options)
        other.load_state_dict(saved)
        copied = beside.state_dict()
        for k, w in enumerate(model.values()):
            state, kept = saved["state"][k], copied["state"][k]
            known, held = moment(optimizer.state[w])
            assert state[known].placements == w.placements and state[known].dtype is torch.float32
            assert torch.equal(state[known].to_local(), held.to_local())
            assert torch.equal(kept[known].to_local(), held.to_local())
        state = get_optimizer_state_dict(model, optimizer)
        dcp.save(
            {"optimizer": state, "model": model.state_dict()}, checkpoint_id=f"{folder}/{name}"
        )
        trained(model, optimizer, range(10, 20))
        trained(again, other, range(10, 20))
        results.append([[whole(w) for w in m.values()] for m in (model, again)])
    return results


def going_on(folder):
    results = []
    for name, options in RUNS:
        model = net()
        optimizer = made(model, name, options)
        kept = {
            "optimizer": get_optimizer_state_dict(model, optimizer),
            "model": model.state_dict(),
        }
        dcp.load(kept, checkpoint_id=f"{folder}/{name}")
        model.load_state_dict(kept["model"])
        set_optimizer_state_dict(model, optimizer, kept["optimizer"])
        trained(model, optimizer, range(10, 20))
        results.append([whole(w) for w in model.values()])
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state = get_optimizer_state_dict(model, optimizer, options=flat)
    with pytest.raises(ArgumentError) as caught:
        set_optimizer_state_dict(model, optimizer, state, options=flat)
    assert str(caught.value) == (
        "the state has no momentum_buffer_codes\n  where:    Muon, group 0, weight 0\n"
        "  got:      a flat state, in which codes of a sharded weight are saved in full\n"
        "  do:       save and load with flatten_optimizer_state_dict=False"
    )
    return results


def assert_near(found, expected, start, share=0.1):
    for w, v, s in zip(found, expected, start, strict=True):
        assert (w - v).norm() < share * (v - s).norm()


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_codes_of_the_part_of_each_process(world, tmp_path):
    """They go where full state of one process goes, and so do those that load what they saved."""
    expected = []
    for name, options in RUNS:
        model = net()
        trained(model, made(model, name, options, "float32"), range(20))
        expected.append([w.detach() for w in model.values()])
    start = [w.detach() for w in net().values()]
    for found in in_processes(world, in_codes, str(tmp_path)):
        for results, one in zip(found, expected, strict=True):
            for weights in results:
                assert_near(weights, one, start)
    for found in in_processes(2, going_on, str(tmp_path)):
        for weights, one in zip(found, expected, strict=True):
            assert_near(weights, one, start)


def from_one_process(saved):
    """Load codes and scales that belong to whole weights."""
    rank_and_world()
    model = net()
    optimizer = made(model, *RUNS[0])
    optimizer.load_state_dict(saved)
    trained(model, optimizer, range(1))
    return [whole(moment(state)[1]) for state in optimizer.state.values()]


def test_codes_that_one_process_has_saved(tmp_path):
    model = net()
    optimizer = made(model, *RUNS[0])
    trained(model, optimizer, range(10))
    before = [moment(state)[1] for state in optimizer.state.values()]
    start = [w.detach() for w in net().values()]
    generator = torch.Generator().manual_seed(0)
    noise = [0.3 * torch.randn(SHAPES[name], generator=generator) for name in model]
    for found in in_processes(2, from_one_process, optimizer.state_dict()):
        for m, old, w, n in zip(found, before, start, noise, strict=True):
            expected = 0.9 * old + 0.1 * (w + n)
            # Rounded to the nearest when loaded and at random in the step, to an eighth at most.
            torch.testing.assert_close(m, expected, rtol=0.19, atol=1e-3 * float(old.abs().max()))
