"""torch's ZeroRedundancyOptimizer with our classes: each process steps some of the weights."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from ranks import in_processes
from test_distributed_optimizer import alone, data, model, rank_and_world
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import ravine
from ravine.engine.functions import abs, model_sum
from ravine.errors import ArgumentError
from ravine.schedules import cosine, warmup

STEPS = 4
RUNS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("Adam", {"lr": 0.01, "clip_norm": 0.05, "l2": 1e-3}),
    ("AdamW", {"lr": warmup(2) >> cosine(6, peak=0.05), "clip_norm": 0.5}),
]


def begun(name, options):
    net = DistributedDataParallel(model())
    made = getattr(ravine.optim, name)
    return net, ZeroRedundancyOptimizer(net.parameters(), optimizer_class=made, **options)


def train(net, optimizer, steps):
    rank, world = rank_and_world()
    for step in steps:
        optimizer.zero_grad()
        rows = data(step)[rank::world]
        (net(rows).square().sum() * world / len(data(step))).backward()
        optimizer.step()


def divided(runs):
    results = []
    for name, options in runs:
        net, optimizer = begun(name, options)
        train(net, optimizer, range(2))
        optimizer.consolidate_state_dict(to=0)
        saved = [optimizer.state_dict()] if torch.distributed.get_rank() == 0 else [None]
        torch.distributed.broadcast_object_list(saved)
        kept = [w.detach().clone() for w in net.parameters()]

        again, other = begun(name, options)
        train(again, other, range(1))  # loading takes the place of what is there
        with torch.no_grad():
            for w, v in zip(again.parameters(), kept, strict=True):
                w.copy_(v)
        other.load_state_dict(copy.deepcopy(saved[0]))  # it would take the tensors themselves
        train(net, optimizer, range(2, STEPS))
        train(again, other, range(2, STEPS))
        results += [[w.detach() for w in n.parameters()] for n in (net, again)]
        norms = optimizer.optim.gradient_norm(), other.optim.gradient_norm()
        assert math.isclose(*norms, rel_tol=1e-12)
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("world", "runs"), [(2, RUNS), (4, RUNS[-1:])])
def test_weights_of_one_process(world, runs):
    expected = [alone(*run)[0] for run in runs for _ in range(2)]
    for found in in_processes(world, divided, runs):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Mine(ravine.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr, clip_norm=1.0)


def more_processes_than_weights():
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = ZeroRedundancyOptimizer([w], Mine, lr=1.0)
    w.grad = torch.full_like(w, 2.0)
    optimizer.step()
    return w.detach()


def test_a_process_without_weights_takes_part_in_the_norm():
    for found in in_processes(2, more_processes_than_weights):
        expected = 1 - 2 / (math.sqrt(12) + 1e-6)
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-12, atol=0)


def a_rule_with_sums_over_the_model():
    @ravine.update_rule
    def scaled(w, g, *, lr):
        return w - lr * g / model_sum(abs(g))

    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ZeroRedundancyOptimizer([w], scaled, lr=1.0)
    w.grad = torch.ones(3)
    with pytest.raises(ArgumentError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        "the rule scaled cannot be divided by ZeroRedundancyOptimizer\n"
        "  expected: a rule without sums over all weights\n"
        "  do:       use torch.distributed.fsdp.fully_shard, which divides every weight"
    )


def test_sums_over_the_model_are_refused():
    in_processes(2, a_rule_with_sums_over_the_model)
