"""``capturable=True``: a step that reads nothing on the host, which a CUDA graph can repeat.

Where there is no GPU a graph of PyTorch's tracer stands for CUDA's: it repeats, on the same tensors, what was
done to tensors, with all numbers of the host as they were.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import ravine.optim
from ravine.errors import ArgumentError
from ravine.rules import RULES
from ravine.schedules import exponential

ALL = {
    "clip_norm": 0.5,
    "clip_value": 0.4,
    "l1": 1e-3,
    "l2": 1e-3,
    "average": 0.9,
    "maximize": True,
}
OPTIONS = {
    "SGD": [{}, {"momentum": 0.9, "nesterov": True}],
    "Adam": [{}, {"amsgrad": True}, ALL],
    "AdEMAMix": [{"alpha_warmup": 4, "beta3_warmup": 5}],
    "RMSprop": [{"centered": True, "momentum": 0.9}],
    "AdamW": [{"cautious": True, "weight_decay": 0.1}],
}
RULE_CASES = [
    (name, options)
    for name, rule in RULES.items()
    if not rule.shared
    for options in OPTIONS.get(name, [{}])
]


class NothingRead(TorchDispatchMode):
    """Fails where a number comes to the host, or goes from it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not re.search("local_scalar|is_nonzero|lift_fresh", str(function)), function
        return function(*args, **(kwargs or {}))


def made(name, dtype=torch.float64, **options):
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((5, 3), 4, ())]
    return weights, getattr(ravine.optim, name)(weights, **{"lr": 1e-2, **options})


def gradients(weights, step):
    torch.manual_seed(step)
    for weight in weights:
        weight.grad = torch.randn_like(weight)


def assert_close(ours, theirs, tolerance=1e-13):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), RULE_CASES, ids=str)
def test_the_numbers_are_those_of_the_compiled_step(name, options):
    ours, optimizer = made(name, capturable=True, **options)
    theirs, other = made(name, **options)
    for step in range(6):
        for weights in (ours, theirs):
            gradients(weights, step)
            if step == 3:
                weights[1].grad = None
        if step == 0:
            optimizer.step()  # makes the state
        else:
            with NothingRead():
                optimizer.step()
        other.step()
    assert_close(ours, theirs)
    for w, v in zip(ours, theirs, strict=True):
        held, expected = optimizer.state[w], other.state[v]
        assert held["step"] == expected["step"]
        for number in RULES[name].numbers:
            saved = RULES[name].state_names.get(number, number)
            torch.testing.assert_close(held[saved], expected[saved])
    assert "a CUDA graph can hold" in optimizer.explain()


@pytest.mark.parametrize("name", ["AdamW", "NAdam"])
def test_what_is_repeated_goes_on_as_steps_do(name):
    """Step counts, the norm and lr are read anew: all that a graph repeats lies in tensors."""
    rate = torch.tensor(1e-2, dtype=torch.float64)
    ours, optimizer = made(name, capturable=True, lr=rate, clip_norm=0.5)
    theirs, other = made(name, clip_norm=0.5)
    gradients(ours, 0)
    optimizer.step()
    held = [w.grad for w in ours]

    def step():
        optimizer.step()
        return list(ours)

    before = [w.detach().clone() for w in ours]
    counts = [optimizer.state[w]["step"] for w in ours]
    graph = make_fx(step)()  # makes a step itself
    gradients(theirs, 0)
    other.step()
    other.step()
    assert not torch.equal(before[0], ours[0])
    for number in range(2, 6):
        gradients(theirs, number)
        for gradient, w in zip(held, theirs, strict=True):
            gradient.copy_(w.grad)
        if number == 4:
            rate.fill_(3e-2)
            other.param_groups[0]["lr"] = 3e-2
        graph()
        other.step()
    assert_close(ours, theirs)
    assert all(optimizer.state[w]["step"] is count for w, count in zip(ours, counts, strict=True))
    assert counts[0] == 6


def test_a_new_plan_keeps_the_tensors_of_a_graph():
    weights, optimizer = made("NAdam", capturable=True)
    gradients(weights, 0)
    optimizer.step()
    held = dict(optimizer.state[weights[0]])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    gradients(weights, 1)
    optimizer.step()
    assert all(optimizer.state[weights[0]][name] is t for name, t in held.items())
    assert optimizer.state[weights[0]]["step"] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64], ids=str)
def test_other_types(dtype):
    (ours, optimizer), (theirs, other) = (
        made("Adam", dtype, clip_norm=0.5, **more) for more in ({"capturable": True}, {})
    )
    for step in range(3):
        for weights, one in ((ours, optimizer), (theirs, other)):
            gradients(weights, step)
            one.step()
    assert_close(ours, theirs, 2**-8 if dtype is torch.bfloat16 else 1e-6)


def test_saved_and_loaded_with_and_without():
    for first, second in ((True, False), (False, True)):
        weights, optimizer = made("NAdam", capturable=first)
        others, other = made("NAdam", capturable=second)
        gradients(weights, 0)
        optimizer.step()
        other.load_state_dict(optimizer.state_dict(), keep=["capturable"])
        for w, v in zip(weights, others, strict=True):
            v.data.copy_(w)
        for w in (weights, others):
            gradients(w, 1)
        optimizer.step()
        other.step()
        assert_close(weights, others)
        assert other.param_groups[0]["capturable"] is second
        assert ("CUDA graph" in other.explain()) is second


def test_a_state_of_torchs_own_says_so_too():
    weights, optimizer = made("Adam")
    theirs = torch.optim.Adam(weights, capturable=True).state_dict()
    optimizer.load_state_dict(theirs)
    assert optimizer.param_groups[0]["capturable"] is True


@pytest.mark.parametrize(
    ("name", "options", "got"),
    [
        ("SGD", {"lr": exponential(0.1, rate=0.9)}, "a schedule as lr"),
        ("SGD", {"skip_nonfinite": True}, "skip_nonfinite=True"),
        ("SGD", {"in_backward": True}, "in_backward=True"),
        ("Adam", {"state_dtype": "int8"}, "state_dtype='int8'"),
        ("Adam", {"stochastic_rounding": True}, "stochastic_rounding=True"),
        ("Muon", {}, "the rule Muon, which computes with whole matrices"),
    ],
    ids=str,
)
def test_what_the_host_decides_is_refused(name, options, got):
    with pytest.raises(ArgumentError) as caught:
        made(name, torch.float32, capturable=True, **options)
    assert str(caught.value) == (
        f"capturable=True cannot be used\n  where:    {name}, group 0\n  got:      {got}\n"
        "  expected: a step that needs nothing from the host\n"
        "  do:       leave one of them out; without capturable, capture forward and backward alone "
        "and call step() after each replay"
    )


def test_sums_over_all_weights_are_refused():
    weights, optimizer = made("Prodigy", capturable=True)
    gradients(weights, 0)
    with pytest.raises(ArgumentError, match="shape \\(5, 3\\)\n  got:      sums over all weights"):
        optimizer.step()


def test_an_edited_group_is_refused_at_the_next_step():
    weights, optimizer = made("SGD")
    gradients(weights, 0)
    optimizer.step()
    optimizer.param_groups[0].update(capturable=True, skip_nonfinite=True)
    with pytest.raises(ArgumentError, match="skip_nonfinite=True"):
        optimizer.step()


def test_a_step_that_cannot_be_captured_says_so(monkeypatch):
    weights, optimizer = made("SGD")
    gradients(weights, 0)
    optimizer.step()
    (bucket,) = optimizer._plan.buckets
    bucket._on_gpu = True
    before = [w.detach().clone() for w in weights]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(ArgumentError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        "this step cannot be captured by a CUDA graph\n"
        "  got:      an optimizer whose step counts and hyperparameters are read by the host\n"
        "  expected: capturable=True\n"
        "  do:       make it so, or capture forward and backward alone and call step() after each "
        "replay"
    )
    assert all(map(torch.equal, before, weights))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("capturable", [True, False])
def test_graphs_on_a_gpu(capturable):
    """The whole step in a graph, or forward and backward alone with the step after each replay."""
    finals = []
    for graphed in (True, False):
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 8, device="cuda")
        optimizer = ravine.optim.AdamW(
            model.parameters(), lr=1e-2, clip_norm=1.0, capturable=capturable
        )
        x = torch.randn(16, 8, device="cuda")

        def work(model=model, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            if capturable:
                optimizer.step()

        def after(optimizer=optimizer):
            if not capturable:
                optimizer.step()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
                after()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if graphed:
            with torch.cuda.graph(graph):
                work()
        for step in range(5):
            x.copy_(torch.randn(16, 8, generator=torch.Generator().manual_seed(step)))
            (graph.replay if graphed else work)()
            after()
        finals.append([p.detach().cpu() for p in model.parameters()])
    assert_close(*finals, tolerance=1e-6)
