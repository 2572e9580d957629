"""Numbers that are state: of each weight, and of the whole optimizer."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import ravine
from ravine.engine.equation import Equation
from ravine.engine.functions import maximum, model_sum, tensor_norm, where
from ravine.engine.lowering import lower
from ravine.errors import EquationError
from ravine.rules import RULES

BACKENDS = ["cpu", "reference"]


@ravine.update_rule(numbers={"power": 1.0, "largest": "start"}, state_names={"largest": "top"})
def decaying(w, g, m, *, t, power, largest, lr, start=0.5):
    power = power * 0.9
    largest = maximum(largest, tensor_norm(g))
    m = m + g / largest
    return w - lr * power * m, m, power, largest


@ravine.update_rule(shared={"d": "d0", "count": 0.0})
def growing(w, g, *, d, count, lr, d0=0.25):
    d = d + model_sum(g * g)
    return w - lr * d * g, d, count + 1


def two(dtype=torch.float64):
    return [torch.nn.Parameter(torch.ones(n, dtype=dtype)) for n in (2, 3)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_belongs_to_its_weight_and_follows_its_steps(backend):
    ws = two()
    optimizer = decaying(ws, lr=0.1, backend=backend)
    powers, tops, ms, values = [1.0, 1.0], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0]
    for step in range(6):
        for k, w in enumerate(ws):
            size = (step - 2.0) * (k + 1)
            w.grad = None if (step, k) in ((0, 1), (3, 0)) else torch.full_like(w, size)
            if w.grad is not None:
                powers[k] *= 0.9
                tops[k] = max(tops[k], abs(size) * len(w) ** 0.5)
                ms[k] += size / tops[k]
                values[k] -= 0.1 * powers[k] * ms[k]
        optimizer.step()
        for k, w in enumerate(ws):
            if w not in optimizer.state:
                continue
            held = optimizer.state[w]
            assert set(held) == {"m", "power", "top", "step"}
            assert held["power"].shape == () and held["power"].dtype is torch.float64
            assert float(held["power"]) == pytest.approx(powers[k], rel=1e-14)
            assert float(held["top"]) == pytest.approx(tops[k], rel=1e-14)
            torch.testing.assert_close(
                w.detach(), torch.full_like(w.detach(), values[k]), rtol=1e-12, atol=1e-14
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shared_number_is_one_for_all_groups(backend):
    ws = two()
    optimizer = growing(
        [{"params": ws[:1]}, {"params": ws[1:], "lr": 0.5}], lr=0.1, backend=backend
    )
    d, values = 0.25, [1.0, 1.0]
    for step in range(4):
        for k, w in enumerate(ws):
            w.grad = None if (step, k) == (1, 0) else torch.full_like(w, step + k + 1.0)
        optimizer.step()
        d += sum(float(w.grad.pow(2).sum()) for w in ws if w.grad is not None)
        for k, (w, lr) in enumerate(zip(ws, (0.1, 0.5), strict=True)):
            if w.grad is not None:
                values[k] -= lr * d * (step + k + 1)
            torch.testing.assert_close(w.detach(), torch.full_like(w.detach(), values[k]))
        for group in optimizer.param_groups:
            assert group["d"] == pytest.approx(d, rel=1e-14)
            assert group["count"] == step + 1
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert optimizer.param_groups[2]["d"] == optimizer.param_groups[0]["d"]


def through_a_file(optimizer, ws):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = type(optimizer)(ws, lr=99.0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other, ws


def pickled(optimizer, _):
    other = pickle.loads(pickle.dumps(optimizer))
    return other, other.param_groups[0]["params"]


def copied(optimizer, _):
    other = copy.deepcopy(optimizer)
    return other, other.param_groups[0]["params"]


@pytest.mark.parametrize("again", [through_a_file, pickled, copied])
@pytest.mark.parametrize("rule", [decaying, growing], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_copy_goes_on_with_the_same_bits(rule, again, dtype):
    ws = two(dtype)
    optimizer = rule(ws, lr=0.1)

    def step(some, weights, scale):
        for k, w in enumerate(weights):
            w.grad = torch.full_like(w, scale * (k - 0.5))
        some.step()

    for scale in (1.0, 2.0, 0.3):
        step(optimizer, ws, scale)
    vs = [torch.nn.Parameter(w.detach().clone()) for w in ws]
    other, vs = again(optimizer, vs)
    for scale in (0.7, 3.0, 0.1):
        step(optimizer, ws, scale)
        step(other, vs, scale)
    for w, v in zip(ws, vs, strict=True):
        assert torch.equal(w, v)
        for name, held in optimizer.state[w].items():
            assert torch.equal(held, other.state[v][name]), name
    assert optimizer.param_groups[0].get("d") == other.param_groups[0].get("d")


def test_numbers_are_not_options():
    assert set(decaying.options) & {"power", "largest"} == set()
    with pytest.raises(ravine.errors.UnknownOptionError):
        decaying(two(), lr=0.1, power=0.5)


def a_default(w, g, *, lr, k=1.0):
    return w - lr * g, k


def a_tensor(w, g, *, lr, k):
    return w - lr * g, g


def too_few(w, g, *, lr, k):
    return w - lr * k * g


def an_if(w, g, *, lr, k):
    if k > 1:
        g = -g
    return w - lr * g, k


@pytest.mark.parametrize(
    ("function", "numbers", "said"),
    [
        (a_default, {"k": 1.0}, "cannot keep the number 'k'"),
        (a_tensor, {"lr": 1.0}, "cannot keep the number 'lr'"),
        (a_tensor, {"k": "other"}, "cannot start the number 'k'\n  got:      'other'"),
        (a_tensor, {"k": 1.0}, "returns a tensor for 'k', which is a number"),
        (too_few, {"k": 1.0}, "returns 1 value\n  expected: 2: w, k"),
        (an_if, {"k": 1.0}, "has an if on k, which changes from step to step"),
    ],
)
def test_what_cannot_be_a_number_is_said_when_the_rule_is_made(function, numbers, said):
    for keyword in ("numbers", "shared"):
        with pytest.raises(EquationError) as caught:
            ravine.update_rule(**{keyword: numbers})(function)
        assert said in str(caught.value)


def test_a_number_for_each_weight_and_for_all_is_refused():
    with pytest.raises(EquationError, match="keeps 'k' for each weight and for all"):
        ravine.update_rule(numbers={"k": 1.0}, shared={"k": 1.0})(a_tensor)


def a_norm_of_a_number(w, g, *, lr):
    return w - lr * g * tensor_norm(lr)


def a_sum_under_an_if(w, g, *, lr, flag=True):
    if flag:
        g = g * model_sum(g)
    return w - lr * g


def a_taken_name(w, g, *, lr):
    s7_total0 = g * 2
    return w - lr * s7_total0 * tensor_norm(g)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (a_norm_of_a_number, "has tensor_norm(lr), which is no expression of the elements"),
        (a_sum_under_an_if, "has a model_sum under an if, which groups may decide differently"),
    ],
)
def test_reductions_that_cannot_be_are_said_when_the_rule_is_made(function, said):
    with pytest.raises(EquationError) as caught:
        ravine.update_rule(function)
    assert said in str(caught.value)


def test_a_name_that_the_engine_gives_to_totals_is_refused():
    with pytest.raises(EquationError) as caught:
        lower(Equation(a_taken_name), {"lr": 0.1}, prefix="s7_")
    assert "has a name that begins with 's7_total'" in str(caught.value)


def test_groups_that_ask_for_different_sums_are_refused():
    scope = {"model_sum": model_sum, "where": where}
    exec(  # without a source only the reference can run it, and the if is seen by nobody
        "def unseen(w, g, *, lr, flag=True):\n"
        "    return w - lr * (g * model_sum(g) if flag else g)",
        scope,
    )
    a, b = two()
    rule = ravine.update_rule(scope["unseen"])
    optimizer = rule([{"params": [a]}, {"params": [b], "flag": False}], lr=0.1, backend="reference")
    a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
    with pytest.raises(EquationError, match="groups of weights ask for different sums"):
        optimizer.step()
    optimizer.param_groups[1]["flag"] = True
    optimizer.step()
    torch.testing.assert_close(a.detach(), torch.full_like(a.detach(), 1 - 0.1 * 5))


def test_a_loss_of_all_elements_is_refused():
    from ravine.losses.elementwise import ElementwiseLoss

    def scaled(input, target):
        return (input - target) / tensor_norm(target), 1 / tensor_norm(target)

    with pytest.raises(EquationError, match="loss 'scaled' asks for a number that comes from all"):
        ElementwiseLoss("Scaled", Equation(scaled))


STATEFUL = [n for n, r in RULES.items() if r.numbers or r.shared or r.equation.reduces]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", STATEFUL)
def test_narrow_weights_are_stepped_as_by_the_reference(name, dtype):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator).to(dtype) for s in ((40, 3), (2,), (0,), ())]
    given = [[torch.randn(w.shape, generator=generator).to(dtype) for w in start] for _ in range(6)]
    found = []
    for backend in BACKENDS:
        ws = [torch.nn.Parameter(w.clone()) for w in start]
        optimizer = getattr(ravine.optim, name)(ws, lr=0.1, backend=backend)
        for gradients in given:
            for w, g in zip(ws, gradients, strict=True):
                w.grad = g
            optimizer.step()
        found.append([w.detach() for w in ws])
        held = optimizer.state[ws[0]]
        assert {t.dtype for t in held.values() if t.ndim} == {torch.float32}
        assert {t.dtype for t in held.values() if not t.ndim} == {torch.float64}
    for w, v in zip(*found, strict=True):
        torch.testing.assert_close(w, v, rtol=torch.finfo(dtype).eps * 8, atol=1e-7)
