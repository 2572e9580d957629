"""A step in unusual surroundings: default devices, inference mode, other threads, tied memory."""

from __future__ import annotations

import threading
import weakref

import pytest
import torch

import ravine.optim

either = pytest.mark.parametrize("backend", ["cpu", "reference"])


def weight(size=4):
    w = torch.nn.Parameter(torch.ones(size))
    w.grad = torch.ones(size)
    return w


def stepped(backend, steps=2, around=None, **options):
    """Return a weight after steps of Adam, each within the context that ``around`` makes."""
    w = weight()
    optimizer = ravine.optim.Adam([w], lr=0.1, backend=backend, **options)
    for _ in range(steps):
        if around is None:
            optimizer.step()
        else:
            with around():
                optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    return w.detach().clone()


AROUND = {
    "default device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@either
@pytest.mark.parametrize("around", AROUND)
def test_the_step_is_the_same_in(around, backend):
    options = {"clip_norm": 1.0, "average": 0.9, "amsgrad": True}
    got = stepped(backend, around=AROUND[around], **options)
    assert torch.equal(got, stepped(backend, **options))


@either
def test_the_step_is_the_same_under_another_default_type(backend):
    expected = stepped(backend)
    torch.set_default_dtype(torch.float64)
    try:
        w = weight().float()
        assert w.dtype is torch.float32
        made = torch.nn.Parameter(w.detach())
        made.grad = torch.ones(4, dtype=torch.float32)
        optimizer = ravine.optim.Adam([made], lr=0.1, backend=backend)
        for _ in range(3):
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(made.detach(), expected)


@either
def test_gradients_that_belong_to_a_graph(backend):
    w = weight()
    w.grad = None
    (gradient,) = torch.autograd.grad((w**3).sum(), w, create_graph=True)
    w.grad = gradient
    optimizer = ravine.optim.SGD([w], lr=0.5, backend=backend)
    optimizer.step()
    assert w.tolist() == [-0.5] * 4
    assert w.is_leaf
    assert w.grad is gradient


@either
def test_weights_that_are_made_later(backend):
    model = torch.nn.LazyLinear(2)
    optimizer = ravine.optim.Adam(model.parameters(), backend=backend)
    model(torch.ones(3, 4)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.weight)


@either
def test_a_step_from_another_thread(backend):
    w = weight()
    thread = threading.Thread(target=ravine.optim.SGD([w], lr=1.0, backend=backend).step)
    thread.start()
    thread.join()
    assert w.tolist() == [0] * 4


@either
def test_large_tied_memory_is_stepped_once_for_each_parameter(backend):
    """One launch would have two threads write the same memory; a lost step shows as a difference."""
    size = 300_000
    memory = torch.zeros(size + 10)
    ws = [torch.nn.Parameter(memory[k : k + size]) for k in (0, 10, 0, 5)]
    apart = torch.nn.Parameter(torch.zeros(3))
    for w in (*ws, apart):
        w.grad = torch.ones_like(w)
    optimizer = ravine.optim.SGD([*ws, apart], lr=1.0, backend=backend)
    for _ in range(20):
        optimizer.step()
    covered = torch.zeros(size + 10)
    for k in (0, 10, 0, 5):
        covered[k : k + size] -= 20
    assert torch.equal(memory, covered)
    if backend == "cpu":
        sizes = [len(bucket.members) for bucket in optimizer._plan.buckets]
        assert sizes == [2, 1, 1, 1]


@either
def test_groups_replaced_as_objects(backend):
    w = weight()
    optimizer = ravine.optim.SGD([w], lr=1.0, backend=backend)
    optimizer.step()
    optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=0.5)
    optimizer.step()
    assert w.tolist() == [-0.5] * 4
    optimizer.param_groups = [dict(optimizer.param_groups[0], lr=0.25)]
    optimizer.step()
    assert w.tolist() == [-0.75] * 4


@either
def test_an_empty_group(backend):
    w = weight()
    optimizer = ravine.optim.SGD([{"params": []}, {"params": [w]}], lr=1.0, backend=backend)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert w.tolist() == [-1] * 4


@either
@pytest.mark.parametrize("transposed", [False, True])
def test_the_memory_of_a_gradient_is_free_after_zero_grad(transposed, backend):
    w = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = ravine.optim.Adam([w], backend=backend, clip_norm=1.0)
    for _ in range(3):
        memory = torch.ones(3, 3)
        freed = weakref.ref(memory.untyped_storage())
        w.grad = memory.t() if transposed else memory
        del memory
        optimizer.step()
        optimizer.zero_grad()
        assert freed() is None
