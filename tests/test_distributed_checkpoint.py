"""Sharded training saved by 4 processes goes on in 2, to the numbers of one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import in_processes
from test_distributed_optimizer import (
    alone,
    made,
    model,
    rank_and_world,
    trained,
    weights_and_averages,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import ravine.optim
from ravine.schedules import cosine, warmup

BEFORE, AFTER = range(3), range(3, 6)
RUNS = [
    (
        "AdamW",
        {
            "lr": warmup(2) >> cosine(8, peak=0.05),
            "average": 0.9,
            "clip_norm": 0.5,
            "skip_nonfinite": True,
        },
    ),
    ("Adam", {"lr": 0.01, "amsgrad": True, "l2": 0.1, "decay": "independent", "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("Muon", {"lr": 0.05, "ns_dtype": "float64"}),
    ("Shampoo", {"lr": 0.1, "momentum": 0.9, "precondition_frequency": 2}),
]
SAVED = [(RUNS[0], False), (RUNS[0], True), (RUNS[1], False), (RUNS[2], True), (RUNS[3], False)]
SAVED += [(RUNS[4], False), (RUNS[4], True)]
"""Runs, and whether the optimizer's state is saved as one flat dictionary."""


def begun(name, options, world):
    net = model()
    if world > 1:
        mesh = init_device_mesh("cpu", (world,))
        fully_shard(net[0], mesh=mesh)
        fully_shard(net, mesh=mesh)
    return net, made(net, name, options)


def saving(folder):
    rank, world = rank_and_world()
    for k, ((name, options), flat) in enumerate(SAVED):
        net, optimizer = begun(name, options, world)
        trained(net, optimizer, rank, world, BEFORE)
        how = StateDictOptions(flatten_optimizer_state_dict=flat)
        state = {
            "model": net.state_dict(),
            "optimizer": get_optimizer_state_dict(net, optimizer, options=how),
        }
        dcp.save(state, checkpoint_id=f"{folder}/{k}")


def going_on(folder):
    rank, world = rank_and_world()
    results = []
    for k, ((name, options), flat) in enumerate(SAVED):
        net, optimizer = begun(name, options, world)
        how = StateDictOptions(flatten_optimizer_state_dict=flat)
        parts = get_state_dict(net, optimizer, options=how)
        state = dict(zip(("model", "optimizer"), parts, strict=True))
        dcp.load(state, checkpoint_id=f"{folder}/{k}")
        set_state_dict(
            net,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=how,
        )
        norms = trained(net, optimizer, rank, world, AFTER)
        results.append((weights_and_averages(net, optimizer), norms))
    return results


@pytest.mark.slow
def test_saved_by_four_loaded_by_two(tmp_path):
    expected = []
    for run, _ in SAVED:
        weights, norms = alone(*run, steps=range(6))
        expected.append((weights, norms[3:]))
    in_processes(4, saving, str(tmp_path))
    for found in in_processes(2, going_on, str(tmp_path)):
        for result, one in zip(found, expected, strict=True):
            torch.testing.assert_close(result, one, rtol=1e-10, atol=1e-12)


def plain_state_dicts(run, whole_state):
    """Go on from this process's own state dictionary, and from that of one process alone."""
    rank, world = rank_and_world()
    name, options = run
    results = []
    net, optimizer = begun(name, options, world)
    trained(net, optimizer, rank, world, BEFORE)
    again = made(net, name, options)
    again.load_state_dict(optimizer.state_dict())
    norms = trained(net, again, rank, world, AFTER)
    results.append((weights_and_averages(net, again), norms))

    net, optimizer = begun(name, options, world)
    trained(net, optimizer, rank, world, BEFORE)
    again = made(net, name, options)
    again.load_state_dict(whole_state)
    norms = trained(net, again, rank, world, AFTER)
    for w in net.parameters():
        held = [one for one in again.state[w].values() if one.dim()]
        assert all(one.placements == w.placements for one in held)
    results.append((weights_and_averages(net, again), norms))
    return results


@pytest.mark.parametrize("name, options", [RUNS[0], RUNS[4]])
def test_plain_state_dictionaries_and_those_of_one_process(name, options):
    net, optimizer = begun(name, options, 1)
    trained(net, optimizer, steps=BEFORE)
    state = optimizer.state_dict()
    norms = trained(net, optimizer, steps=AFTER)
    expected = (weights_and_averages(net, optimizer), norms)
    net, optimizer = begun(name, options, 1)
    trained(net, optimizer, steps=BEFORE)
    state = optimizer.state_dict()
    for found in in_processes(2, plain_state_dicts, (name, options), state):
        for result in found:
            torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), RUNS)
def test_asking_for_the_state_before_the_first_step_changes_nothing(name, options):
    net = model()
    before = [w.detach().clone() for w in net.parameters()]
    optimizer = made(net, name, options)
    state = get_optimizer_state_dict(net, optimizer)
    set_optimizer_state_dict(net, optimizer, state)
    torch.testing.assert_close([*net.parameters()], before, rtol=0, atol=0)
    assert all(float(optimizer.state[w]["step"]) == 0 for w in net.parameters())
    assert trained(net, optimizer) == alone(name, options)[1]
    torch.testing.assert_close(
        weights_and_averages(net, optimizer), alone(name, options)[0], rtol=0, atol=0
    )


def test_a_warmup_from_zero_is_not_taken_for_such_a_request():
    net = model()
    optimizer = ravine.optim.Adam(net.parameters(), lr=warmup(4) >> cosine(8, peak=0.1))
    optimizer.param_groups[0]["lr"] = 0.0
    trained(net, optimizer, steps=range(1))
    assert float(optimizer.state[net[0].weight]["step"]) == 1
