"""A person's own rule: written in a file, a closure or a string, with names of all kinds."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import ravine
from ravine.engine.functions import sign, sqrt, where
from ravine.errors import ArgumentError, BackendWarning, EquationError


@ravine.update_rule
def lion(w, g, m, *, lr, betas=(0.9, 0.99)):
    """Lion."""
    b1, b2 = betas
    return w - lr * sign(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g


@ravine.update_rule(state_names={"s": "sum"}, initial={"s": 0.1})
def adagrad(w, g, s, *, lr, eps=1e-10):
    s = s + g * g
    return w - lr * g / (sqrt(s) + eps), s


@ravine.update_rule
def hostile_names(w, g, i, count, length, start, head, chunk, array_w, es, *, lr, values=0.5, k=1):
    i, count = i + g, count - g
    length, start, head = length + i, start + g, head + count
    step = i + count + length + start + head
    return w - lr * values * k * step, i, count, length, start, head, chunk + g, array_w, es + w


@ravine.update_rule
def swapping(w, g, a, b, *, lr):
    return w - lr * (g + a), b + g, a - g


@ravine.update_rule
def own_decay(w, g, *, lr, weight_decay=0.1):
    return w - lr * (g + weight_decay * w)


@ravine.update_rule
def decay_as_number(w, g, v, *, lr, decay=0.9):
    v = decay * v + g
    return w - lr * v, v


@ravine.update_rule
def normalised(w, g, *, lr, norm):
    return w - lr * g / norm


@ravine.update_rule
def three_betas(w, g, *, lr, betas=(0.5, 0.25, 0.125)):
    return w - lr * betas[0] * betas[1] * betas[2] * g


@ravine.update_rule
def in_place(w, g, m, *, lr):
    m *= 0.5
    m += g
    u = w
    u -= lr * m
    g *= 0
    return u + g, m


RULES = [lion, adagrad, hostile_names, swapping, own_decay, decay_as_number, in_place]


def run(rule, backend, steps=5, **options):
    generator = torch.Generator().manual_seed(1)
    ws = [
        torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64))
        for s in ((4, 3), (2,))
    ]
    optimizer = rule(ws, **({"lr": 0.1, "backend": backend} | options))
    for _ in range(steps):
        for w in ws:
            w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64)
        kept = [w.grad.clone() for w in ws]
        optimizer.step()
        assert all(torch.equal(w.grad, g) for w, g in zip(ws, kept, strict=True))
    return ws, optimizer


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_compiled_equals_reference(rule):
    (ours, a), (theirs, b) = run(rule, "cpu"), run(rule, "reference")
    for w, v in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-14)
        assert a.state[w].keys() == b.state[v].keys()
        for name in a.state[w]:
            torch.testing.assert_close(a.state[w][name], b.state[v][name], rtol=1e-12, atol=1e-14)


def test_initial_state_and_its_name():
    ours, optimizer = run(adagrad, "cpu", eps=0.0)
    theirs = [torch.nn.Parameter(torch.zeros_like(w)) for w in ours]
    assert set(optimizer.state[ours[0]]) == {"sum", "step"}
    generator = torch.Generator().manual_seed(1)
    for w in theirs:
        w.data = torch.randn(w.shape, generator=generator, dtype=torch.float64)
    other = torch.optim.Adagrad(theirs, lr=0.1, initial_accumulator_value=0.1, eps=0.0)
    for _ in range(5):
        for w in theirs:
            w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64)
        other.step()
    for w, v in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-14)


def test_a_rule_that_names_an_option_means_it_itself():
    ours, optimizer = run(own_decay, "cpu")
    theirs, _ = run(ravine.optim.SGD, "cpu", weight_decay=0.1)
    for w, v in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-14)
    assert "decay" in decay_as_number.options
    assert decay_as_number.options["decay"] == 0.9
    assert optimizer.options["weight_decay"] == 0.1


@pytest.mark.parametrize("kind", ["", "numbers", "shared"])
def test_a_name_that_no_rule_can_mean_itself(kind):
    taken = (
        "average, backend, capturable, decoupled_weight_decay, differentiable, foreach, fused, "
        "grad_scale, in_backward, initial_lr, param_names, params, rounding_seed, schedule, "
        "schedule_step, self, skip_nonfinite, skipped_steps, state_dtype, stochastic_rounding"
    )
    for name in taken.split(", "):
        if (kind, name) == ("numbers", "average"):
            continue  # refused among the states before
        scope: dict = {}
        exec(f"def sharp(w, g, *, lr, {name}): return w", scope)
        with pytest.raises(EquationError) as caught:
            ravine.update_rule(**{kind: {name: 1.0}} if kind else {})(scope["sharp"])
        assert str(caught.value) == (
            f"update rule 'sharp' has the parameter {name!r}\n"
            "  expected: a name that is not taken\n"
            f"  do:       call it otherwise; taken are {taken}"
        )


def test_other_options_stay():
    _, optimizer = run(own_decay, "cpu", clip_norm=0.5, l1=0.1)
    assert "clip_by_norm + l1_penalty + own_decay" in optimizer.explain()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_rule_may_ask_for_the_norm_of_the_gradient(backend):
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    w.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    normalised([w], lr=1.0, backend=backend).step()
    torch.testing.assert_close(w.data, torch.tensor([-0.6, -0.8], dtype=torch.float64))


def test_a_tuple_has_as_many_numbers_as_its_default():
    run(three_betas, "cpu")
    with pytest.raises(ArgumentError) as caught:
        run(three_betas, "cpu", betas=(0.5, 0.5))
    assert "expected: 3 numbers in [0, 1)" in str(caught.value)


def test_a_missing_hyperparameter_is_named():
    w = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ArgumentError) as caught:
        lion([w])
    assert str(caught.value) == "lion needs a value for lr\n  do:       write lion(params, lr=...)"


def test_a_rule_without_source_runs_by_the_reference_and_warns_once():
    scope = {"where": where}
    exec("def unseen(w, g, m, *, lr):\n    return w - lr * where(g > 0, g, m), m + g", scope)
    rule = ravine.update_rule(scope["unseen"])
    with pytest.warns(BackendWarning, match="the source of equation 'unseen' is not available"):
        ours, optimizer = run(rule, "auto")
    assert "reference" in optimizer.explain()

    def seen(w, g, m, *, lr):
        return w - lr * where(g > 0, g, m), m + g

    theirs, _ = run(ravine.update_rule(seen), "cpu")
    for w, v in zip(ours, theirs, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-14)
    run(rule, "auto")  # a second warning would be an error


def test_class_name_signature_and_docstring():
    import inspect

    assert lion.__name__ == lion.__qualname__ == "lion"
    assert lion.__doc__ == "Lion."
    parameters = inspect.signature(lion).parameters
    assert list(parameters)[:2] == ["params", "lr"]
    assert parameters["betas"].default == (0.9, 0.99)
    assert issubclass(lion, torch.optim.Optimizer)


def test_pickle_and_deepcopy():
    for again in (lambda o: pickle.loads(pickle.dumps(o)), copy.deepcopy):
        ws, optimizer = run(lion, "cpu")
        other = again(optimizer)
        copies = other.param_groups[0]["params"]
        for w, v in zip(ws, copies, strict=True):
            assert w is not v
            w.grad = v.grad = torch.ones_like(w)
        optimizer.step()
        other.step()
        for w, v in zip(ws, copies, strict=True):
            assert torch.equal(w, v)


def test_division_by_a_hyperparameter_of_zero_gives_what_tensors_give():
    def divided(w, g, *, lr, k=0.0):
        return w - lr * g / k

    for backend in ("cpu", "reference"):
        ws, _ = run(ravine.update_rule(divided), backend, steps=1)
        assert all(not math.isfinite(x) for w in ws for x in w.flatten().tolist()), backend
