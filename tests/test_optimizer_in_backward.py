"""Optimizer in backward: the same bits, with few gradients alive at any time."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from rule_table import ROWS
from torch import nn

import ravine.optim
from ravine.engine.functions import tensor_norm
from ravine.rules import RULES
from ravine.schedules import cosine, plateau, warmup

DEPTH = 6
RUNS = [row for row in ROWS if row.options.get("clip_norm") is None and not RULES[row.rule].shared]


def model():
    torch.manual_seed(2)
    return nn.Sequential(*(nn.Linear(5, 5) for _ in range(DEPTH)), nn.Linear(5, 1)).double()


def train(net, optimizer, steps, late=False):
    for step in steps:
        rows = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        first = 3 if late and step < 2 else 0  # some weights get no gradient at first
        loss = net[first:](rows).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def pair(name, options):
    nets = model(), model()
    made = getattr(ravine.optim, name)
    ordinary = made(nets[0].parameters(), **options)
    return (nets[0], ordinary), (nets[1], made(nets[1].parameters(), in_backward=True, **options))


def assert_same_bits(a, b):
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("row", RUNS, ids=str)
def test_the_bits_of_the_ordinary_step(row):
    (net, ordinary), (other, optimizer) = pair(row.rule, row.options)
    for n, o in ((net, ordinary), (other, optimizer)):
        train(n, o, range(5), late=True)
    assert_same_bits(net, other)
    for w, v in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            dict(ordinary.state[w]), dict(optimizer.state[v]), rtol=0, atol=0
        )
        assert v.grad is None


OPTIONS = [
    {"lr": warmup(3) >> cosine(9, peak=0.1), "average": 0.9},
    {"lr": plateau(0.1), "l1": 0.01, "l1_proximal": True, "clip_value": 0.1},
    {"lr": 0.1, "backend": "reference", "maximize": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["schedule", "plateau", "reference"])
def test_schedules_and_options(options):
    (net, ordinary), (other, optimizer) = pair("AdamW", copy.deepcopy(options))
    for n, o in ((net, ordinary), (other, optimizer)):
        for epoch in range(3):
            train(n, o, range(3 * epoch, 3 * epoch + 3))
            o.observe(1.0 + epoch)
    assert_same_bits(net, other)
    assert ordinary.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_groups_of_both_kinds_and_torchs_schedulers():
    nets = model(), model()
    made = []
    for net, at_once in zip(nets, (False, True), strict=True):
        groups = [
            {"params": net[:3].parameters(), "in_backward": at_once, "weight_decay": 0.1},
            {"params": net[3:6].parameters()},
        ]
        optimizer = ravine.optim.AdamW(groups, lr=0.1)
        optimizer.add_param_group(
            {"params": net[6].parameters(), "in_backward": at_once, "lr": 0.01}
        )
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for step in range(4):
            train(net, optimizer, [step])
            scheduler.step()
        made.append(optimizer)
    assert_same_bits(*nets)


def test_no_more_than_a_layers_gradients_are_alive():
    most = []
    for at_once in (False, True):
        net = model()
        optimizer = ravine.optim.SGD(net.parameters(), lr=0.1, in_backward=at_once)
        alive = []

        def count(_, net=net, alive=alive):
            alive.append(sum(w.grad is not None for w in net.parameters()))

        for w in net.parameters():
            w.register_post_accumulate_grad_hook(count)  # after the optimizer's own
        train(net, optimizer, range(1))
        most.append(max(alive))
    assert most == [2 * (DEPTH + 1), 0]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_memory_of_gradients_is_freed_during_backward(backend):
    net = model()
    memories, alive = [], []

    def count(w):
        memories.append(weakref.ref(w.grad.untyped_storage()))
        alive.append(sum(memory() is not None for memory in memories))

    for w in net.parameters():
        w.register_post_accumulate_grad_hook(count)  # before the optimizer's own
    optimizer = ravine.optim.SGD(net.parameters(), lr=0.1, in_backward=True, backend=backend)
    train(net, optimizer, range(3))
    assert max(alive) <= 2 < 2 * (DEPTH + 1)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_have_hooks_of_their_own(again):
    (net, ordinary), (other, optimizer) = pair("Adam", {"lr": 0.1})
    train(net, ordinary, range(2))
    train(other, optimizer, range(2))
    third, copied = again((other, optimizer))
    train(net, ordinary, range(2, 4))
    train(third, copied, range(2, 4))
    assert_same_bits(net, third)
    train(other, optimizer, range(2, 4))
    assert_same_bits(net, other)


def test_saved_state_goes_to_and_fro():
    (net, ordinary), (other, optimizer) = pair("Adam", {"lr": warmup(2) >> cosine(9, peak=0.1)})
    train(net, ordinary, range(3))
    train(other, optimizer, range(3))

    def loaded(state, net, at_once):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        third = copy.deepcopy(net)
        made = ravine.optim.Adam(third.parameters(), lr=0.5, in_backward=at_once)
        made.load_state_dict(torch.load(file, weights_only=True))
        assert made.param_groups[0]["in_backward"] is at_once
        train(third, made, range(3, 6))
        assert all((w.grad is None) is at_once for w in third.parameters())
        return third

    results = [
        loaded(o.state_dict(), n, at_once)
        for n, o in ((net, ordinary), (other, optimizer))
        for at_once in (False, True)
    ]
    train(net, ordinary, range(3, 6))
    for third in results:
        assert_same_bits(net, third)


def test_an_optimizer_that_is_gone_steps_no_more():
    net = model()
    optimizer = ravine.optim.SGD(net.parameters(), lr=0.1, in_backward=True)
    before = copy.deepcopy(net)
    del optimizer
    gc.collect()
    net(torch.ones(1, 5, dtype=torch.float64)).sum().backward()
    assert_same_bits(net, before)
    assert all(w.grad is not None for w in net.parameters())


def test_gradients_that_came_without_backward_are_stepped():
    (net, ordinary), (other, optimizer) = pair("Adam", {"lr": 0.1})
    for n, o in ((net, ordinary), (other, optimizer)):
        for w in n.parameters():
            w.grad = torch.ones_like(w)
        o.step()
    assert_same_bits(net, other)


def test_unfrozen_and_removed_weights():
    (net, ordinary), (other, optimizer) = pair("SGD", {"lr": 0.1, "momentum": 0.9})
    for n, o in ((net, ordinary), (other, optimizer)):
        n[0].requires_grad_(False)
        train(n, o, range(2))
        n[0].requires_grad_(True)
        train(n, o, range(2))
        o.param_groups[0]["params"].pop()
        n.zero_grad()
        o.step()
        train(n, o, range(2))
    assert_same_bits(net, other)


def test_a_closure():
    (net, ordinary), (other, optimizer) = pair("Adam", {"lr": 0.1})
    rows = torch.ones(2, 5, dtype=torch.float64)
    for n, o in ((net, ordinary), (other, optimizer)):

        def closure(n=n, o=o):
            o.zero_grad()
            loss = n(rows).square().sum()
            loss.backward()
            return loss

        for _ in range(3):
            assert o.step(closure) > 0
    assert_same_bits(net, other)


def test_a_rule_with_a_norm_of_each_weight():
    @ravine.update_rule
    def by_weight(w, g, *, lr):
        return w - lr * g / tensor_norm(g)

    nets = model(), model()
    for net, at_once in zip(nets, (False, True), strict=True):
        train(net, by_weight(net.parameters(), lr=0.1, in_backward=at_once), range(3))
    assert_same_bits(*nets)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AdamW", {"state_dtype": "bfloat16", "stochastic_rounding": True}),
        ("Muon", {"stochastic_rounding": True}),
        ("SOAP", {}),
    ],
)
def test_random_bits_and_matrices(name, options):
    nets = model().to(torch.bfloat16), model().to(torch.bfloat16)
    for net, at_once in zip(nets, (False, True), strict=True):
        groups = [{"params": net[:3].parameters()}, {"params": net[3:].parameters()}]
        made = getattr(ravine.optim, name)
        optimizer = made(groups, lr=0.01, in_backward=at_once, **options)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            rows = torch.randn(4, 5, generator=generator).to(torch.bfloat16)
            optimizer.zero_grad()
            net(rows).square().sum().backward()
            optimizer.step()
    assert_same_bits(*nets)


def test_state_that_is_replaced_by_hand():
    (net, ordinary), (other, optimizer) = pair("Adam", {"lr": 0.1})
    for n, o in ((net, ordinary), (other, optimizer)):
        train(n, o, range(2))
        o.state[n[0].weight]["exp_avg"] = torch.ones_like(n[0].weight)
        o.state[n[1].weight] = {}
        train(n, o, range(2))
    assert_same_bits(net, other)


def test_tied_weights_are_stepped_once():
    results = []
    for at_once in (False, True):
        torch.manual_seed(0)
        shared = nn.Linear(5, 5).double()
        net = nn.Sequential(shared, nn.Tanh(), shared)
        optimizer = ravine.optim.SGD(net.parameters(), lr=0.1, in_backward=at_once)
        net(torch.ones(1, 5, dtype=torch.float64)).sum().backward()
        optimizer.step()
        results.append(net)
    assert_same_bits(*results)


def test_it_is_said():
    optimizer = ravine.optim.SGD(model().parameters(), lr=0.1, in_backward=True)
    assert "in_backward=True" in repr(optimizer)
    assert optimizer.explain().startswith("stepped in backward, each weight when its gradient is")
