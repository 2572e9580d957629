"""Saving and loading: numbers go on identically, between our optimizers and torch's in both directions."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from rule_table import ROWS

import ravine.optim
from ravine.errors import ArgumentError

SHARED = [
    row
    for row in ROWS
    if row.torch_class is not None and row.rule != "GradientDescent" and "l2" not in row.options
]
BACKENDS = ["cpu", "reference"]


def weights():
    return [torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in ((3, 4), (), (5,))]


def copies(ws):
    return [torch.nn.Parameter(w.detach().clone()) for w in ws]


def steps(optimizer, ws, count, seed, skip_first=False):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for k, w in enumerate(ws):
            g = torch.randn(w.shape, dtype=torch.float64, generator=generator)
            w.grad = None if skip_first and k == 0 else g
        optimizer.step()


def saved(optimizer):
    """Send a state dictionary through a file, as safely as torch can."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def ours(row, ws, **more):
    return getattr(ravine.optim, row.rule)(ws, **row.options, **more)


def theirs(row, ws):
    return row.torch_class(ws, **row.torch_options)


def assert_same(ws, vs, rtol=1e-12):
    for w, v in zip(ws, vs, strict=True):
        torch.testing.assert_close(w, v, rtol=rtol, atol=1e-13 if rtol else 0)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_ours_to_ours_goes_on_with_the_same_bits(row):
    ws = weights()
    first = ours(row, ws)
    steps(first, ws, 5, 1, skip_first=True)
    steps(first, ws, 5, 2)
    vs = copies(ws)
    second = getattr(ravine.optim, row.rule)(vs, lr=99.0)
    second.load_state_dict(saved(first))
    steps(first, ws, 10, 3)
    steps(second, vs, 10, 3)
    assert_same(ws, vs, rtol=0)


@pytest.fixture
def wide():
    """Make torch keep its numbers (mu_product, eta) in float64, as we do."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", SHARED, ids=str)
def test_torch_to_ours_in_the_middle_of_a_run(row, backend):
    vs = weights()
    other = theirs(row, vs)
    steps(other, vs, 5, 1, skip_first=True)
    steps(other, vs, 5, 2)
    ws = copies(vs)
    optimizer = ours(row, ws, backend=backend)
    optimizer.load_state_dict(saved(other))
    steps(other, vs, 10, 3)
    steps(optimizer, ws, 10, 3)
    assert_same(ws, vs)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", SHARED, ids=str)
def test_ours_to_torch_in_the_middle_of_a_run(row, backend):
    ws = weights()
    optimizer = ours(row, ws, backend=backend)
    steps(optimizer, ws, 5, 1, skip_first=True)
    steps(optimizer, ws, 5, 2)
    vs = copies(ws)
    other = theirs(row, vs)
    other.load_state_dict(saved(optimizer))
    steps(optimizer, ws, 10, 3)
    steps(other, vs, 10, 3)
    assert_same(ws, vs)


def test_torch_to_ours_for_a_weight_that_has_had_no_gradient_yet():
    row = SHARED[2]
    vs = weights()
    other = theirs(row, vs)
    steps(other, vs, 5, 1, skip_first=True)
    ws = copies(vs)
    optimizer = ours(row, ws)
    optimizer.load_state_dict(saved(other))
    steps(other, vs, 5, 3)
    steps(optimizer, ws, 5, 3)
    assert_same(ws, vs)


def test_fused_torch_to_ours_and_back():
    vs = [torch.nn.Parameter(torch.randn(3, 4))]
    other = torch.optim.Adam(vs, lr=0.01, fused=True)
    for _ in range(3):
        vs[0].grad = torch.randn(3, 4)
        other.step()
    ws = copies(vs)
    optimizer = ravine.optim.Adam(ws, lr=0.01)
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    again = torch.optim.Adam(vs, lr=0.01, fused=True)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        ws[0].grad = torch.randn(3, 4)
        vs[0].grad = ws[0].grad.clone()
        optimizer.step()
        again.step()
    torch.testing.assert_close(ws[0], vs[0])


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("row", [ROWS[3], ROWS[-1]], ids=str)
def test_copies_of_an_optimizer_go_on_alone(row, again):
    ws = weights()
    first = ours(row, ws)
    steps(first, ws, 4, 1)
    second = again(first)
    vs = second.param_groups[0]["params"]
    steps(first, ws, 4, 2)
    steps(second, vs, 4, 2)
    assert_same(ws, vs, rtol=0)
    assert float(first.state[ws[0]]["step"]) == float(second.state[vs[0]]["step"]) == 8


def test_model_and_optimizer_copied_together_stay_together():
    model = torch.nn.Linear(3, 2)
    pair = copy.deepcopy((model, ravine.optim.Adam(model.parameters(), lr=0.1)))
    pair[0](torch.ones(1, 3)).sum().backward()
    before = pair[0].weight.detach().clone()
    pair[1].step()
    assert not torch.equal(pair[0].weight, before)
    assert not torch.equal(pair[0].weight, model.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_keeps_float32_state_of_half_precision_weights(dtype):
    ws = [torch.nn.Parameter(torch.randn(50).to(dtype))]
    first = ravine.optim.Adam(ws, lr=0.01)
    for _ in range(3):
        ws[0].grad = torch.randn(50).to(dtype)
        first.step()
    vs = copies(ws)
    second = ravine.optim.Adam(vs, lr=0.01)
    second.load_state_dict(saved(first))
    assert second.state[vs[0]]["exp_avg"].dtype is torch.float32
    for _ in range(3):
        ws[0].grad = vs[0].grad = torch.randn(50).to(dtype)
        first.step()
        second.step()
    assert torch.equal(ws[0], vs[0])
    assert torch.equal(first.state[ws[0]]["exp_avg"], second.state[vs[0]]["exp_avg"])


def test_torchs_half_precision_state_goes_on_in_float32():
    vs = [torch.nn.Parameter(torch.randn(50).bfloat16())]
    other = torch.optim.Adam(vs, lr=0.01)
    vs[0].grad = torch.randn(50).bfloat16()
    other.step()
    optimizer = ravine.optim.Adam(vs, lr=0.01)
    optimizer.load_state_dict(other.state_dict())
    optimizer.step()
    assert optimizer.state[vs[0]]["exp_avg"].dtype is torch.float32


def test_the_average_travels():
    ws = weights()
    first = ravine.optim.SGD(ws, lr=0.1, average=0.9)
    steps(first, ws, 3, 1)
    vs = copies(ws)
    second = ravine.optim.SGD(vs, lr=0.1, average=0.9)
    second.load_state_dict(saved(first))
    with first.averaged(), second.averaged():
        assert_same(ws, vs, rtol=0)
        assert not torch.equal(ws[0], torch.zeros(3, 4))


def test_no_average_to_show():
    with pytest.raises(ArgumentError) as caught, ravine.optim.SGD(weights(), lr=0.1).averaged():
        pass
    assert str(caught.value) == (
        "no average of the weights is kept\n  where:    SGD\n"
        "  do:       make the optimizer with average=0.999"
    )


def test_averaged_puts_back_after_an_error():
    ws = weights()
    optimizer = ravine.optim.SGD(ws, lr=0.1, average=0.9)
    steps(optimizer, ws, 3, 1)
    kept = copies(ws)
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    assert_same(ws, kept, rtol=0)


def test_the_kind_of_weight_decay_travels_in_both_directions():
    vs = weights()
    other = torch.optim.AdamW(vs, lr=0.1, weight_decay=0.5)
    ws = copies(vs)
    optimizer = ravine.optim.Adam(ws, lr=0.1)
    optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["decay"] == "decoupled"
    coupled = torch.optim.Adam(vs, lr=0.1)
    optimizer.load_state_dict(coupled.state_dict())
    assert optimizer.param_groups[0]["decay"] == "coupled"
    coupled.load_state_dict(ravine.optim.AdamW(ws, lr=0.1).state_dict())
    assert coupled.param_groups[0]["decoupled_weight_decay"] is True
