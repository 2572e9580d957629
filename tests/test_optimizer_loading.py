"""Loading a saved state: by name where names are known, all or nothing, and what does not fit is told."""

from __future__ import annotations

import copy

import pytest
import torch

import ravine.optim
from ravine.errors import ArgumentError, ArgumentTypeError, RavineError, ShapeError
from ravine.schedules import cosine, plateau

SIZES = {"in": (3, 4), "bias": (3,), "scale": (), "out": (4, 3)}


def weights(names=SIZES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.nn.Parameter(torch.randn(SIZES[n], dtype=torch.float64, generator=generator))
        for n in names
    }


def step(optimizer, ws, count=3):
    for k in range(count):
        for name, w in ws.items():
            generator = torch.Generator().manual_seed(1000 * k + len(name))
            w.grad = torch.randn(w.shape, dtype=torch.float64, generator=generator)
        optimizer.step()


def trained(cls=ravine.optim.Adam, names=SIZES, named=True, **options):
    ws = weights(names)
    optimizer = cls(list(ws.items()) if named else list(ws.values()), **{"lr": 0.1, **options})
    step(optimizer, ws)
    return optimizer, ws


def fingerprint(optimizer):
    return copy.deepcopy(optimizer.state_dict())


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype is b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def refused(optimizer, state, error=ArgumentError, **options):
    """Load what must not fit; return the message, after seeing that nothing has changed."""
    before = fingerprint(optimizer)
    groups = list(map(id, optimizer.param_groups))
    with pytest.raises(error) as caught:
        optimizer.load_state_dict(state, **options)
    assert isinstance(caught.value, RavineError)
    assert list(map(id, optimizer.param_groups)) == groups
    assert same(fingerprint(optimizer), before)
    return str(caught.value)


@pytest.mark.parametrize("theirs", [torch.optim.Adam, ravine.optim.Adam])
def test_weights_in_another_order_are_matched_by_name(theirs):
    saver, ws = trained(theirs)
    order = ["out", "scale", "in", "bias"]
    vs = {name: torch.nn.Parameter(ws[name].detach().clone()) for name in order}
    loader = ravine.optim.Adam(list(vs.items()), lr=0.3)
    loader.load_state_dict(saver.state_dict())
    assert loader.param_groups[0]["param_names"] == order
    for name in order:
        assert torch.equal(loader.state[vs[name]]["exp_avg"], saver.state[ws[name]]["exp_avg"])
    loader.load_state_dict(copy.deepcopy(saver.state_dict()))
    step(saver, ws)
    step(loader, vs)
    for name in order:
        torch.testing.assert_close(vs[name], ws[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("named", ["saver", "loader", "neither"])
def test_without_names_on_both_sides_the_order_counts(named):
    saver, ws = trained(torch.optim.Adam, named=named == "saver")
    loader, vs = trained(named=named == "loader")
    loader.load_state_dict(saver.state_dict())
    for w, v in zip(ws.values(), vs.values(), strict=True):
        assert torch.equal(loader.state[v]["exp_avg"], saver.state[w]["exp_avg"])
    names = None if named == "neither" else list(SIZES)
    assert loader.param_groups[0].get("param_names") == names


def test_names_that_do_not_fit():
    saver, _ = trained(names=["in", "bias", "out"])
    loader, _ = trained(names=["in", "bias", "scale"])
    assert refused(loader, saver.state_dict()) == (
        "the saved weights are not those of the optimizer, by name\n  where:    Adam, group 0\n"
        "  got:      missing scale; unexpected out\n"
        "  expected: 3 weights: in, bias, scale\n"
        "  do:       rename them in param_names, or leave names out to match by position"
    )


def test_another_number_of_groups():
    saver, _ = trained()
    ws = weights()
    loader = ravine.optim.Adam([{"params": [w]} for w in ws.values()])
    assert refused(loader, saver.state_dict()) == (
        "loaded state dict has a different number of parameter groups\n"
        "  where:    Adam.load_state_dict\n  got:      1 group, of 4 weights\n"
        "  expected: 4 groups, of 1, 1, 1, 1 weights"
    )


def test_another_number_of_weights_in_a_group():
    saver, _ = trained(names=["in", "bias"])
    loader, _ = trained(named=False)
    assert refused(loader, saver.state_dict()) == (
        "loaded state dict contains a parameter group that doesn't match the size of "
        "optimizer's group\n  where:    Adam, group 0\n"
        "  got:      2 weights: in, bias\n  expected: 4 weights"
    )


def test_the_second_group_is_named():
    ws, vs = weights(), weights()
    loader = ravine.optim.Adam([{"params": [ws["in"]]}, {"params": [ws["out"]]}])
    step(loader, ws)
    saver = ravine.optim.Adam([{"params": [vs["in"]]}, {"params": [vs["bias"]]}])
    step(saver, vs)
    assert refused(loader, saver.state_dict(), ShapeError) == (
        "the state 'exp_avg' does not fit its weight\n  where:    Adam, group 1, weight 0\n"
        "  got:      shape (3,)\n  expected: shape (4, 3)"
    )


def test_a_shape_that_does_not_fit_names_the_weight():
    saver, _ = trained(torch.optim.Adam)
    loader, _ = trained()
    state = fingerprint(saver)
    state["state"][3]["exp_avg_sq"] = state["state"][3]["exp_avg_sq"].t()
    assert refused(loader, state, ShapeError) == (
        "the state 'exp_avg_sq' does not fit its weight\n"
        "  where:    Adam, group 0, weight 3 'out'\n"
        "  got:      shape (3, 4)\n  expected: shape (4, 3)"
    )


@pytest.mark.parametrize("cls", [torch.optim.SGD, ravine.optim.SGD])
def test_a_state_of_another_algorithm(cls):
    saver, _ = trained(cls, momentum=0.9)
    loader, _ = trained()
    text = refused(loader, saver.state_dict())
    assert text.startswith("the state is of another algorithm\n  where:    Adam, group 0\n")
    assert "got:      a group with momentum, dampening, nesterov\n" in text
    assert text.endswith("expected: a group with betas, eps, amsgrad, as Adam has")


def test_a_state_that_is_not_whole():
    saver, _ = trained()
    loader, _ = trained()
    state = fingerprint(saver)
    del state["state"][1]["exp_avg_sq"]
    assert refused(loader, state) == (
        "the state lacks exp_avg_sq, which Adam keeps with these options\n"
        "  where:    Adam, group 0, weight 1 'bias'\n  got:      a state of exp_avg, step\n"
        "  expected: a state of exp_avg, exp_avg_sq\n"
        "  do:       load what an optimizer of the same algorithm has saved"
    )


@pytest.mark.parametrize(
    ("saved", "loading", "lacking"),
    [
        ("Adam", "Adamax", "exp_inf"),
        ("RMSprop", "Adagrad", ""),
        ("Adam", "NAdam", ""),
        ("SGD", "Momentum", ""),
        ("NAdam", "RAdam", ""),
        ("Adam", "Lion", ""),
    ],
)
@pytest.mark.parametrize("home", [ravine.optim, torch.optim], ids=["ravine", "torch"])
def test_algorithms_that_look_alike(saved, loading, lacking, home):
    saver, _ = trained(getattr(home, saved))
    loader, _ = trained(getattr(ravine.optim, loading))
    text = refused(loader, saver.state_dict())
    first = f"the state lacks {lacking}, which" if lacking else "the state is of another algorithm"
    assert text.startswith(first)


def test_a_type_that_does_not_fit():
    saver, _ = trained()
    loader, _ = trained()
    state = fingerprint(saver)
    state["state"][0]["exp_avg"] = state["state"][0]["exp_avg"].cfloat()
    assert refused(loader, state, ArgumentTypeError) == (
        "the state 'exp_avg' does not fit its weight\n  where:    Adam, group 0, weight 0 'in'\n"
        "  got:      torch.complex64\n  expected: a type for a weight of torch.float64"
    )


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ({"model": 1, "optimizer": 2}, "model, optimizer"),
        ({}, "nothing"),
        (torch.nn.Linear(1, 1).state_dict(), "weight, bias"),
    ],
)
def test_what_is_no_state_at_all(given, got):
    loader, _ = trained()
    assert refused(loader, given, ArgumentTypeError) == (
        f"this is not the state of an optimizer\n  where:    Adam.load_state_dict\n"
        f"  got:      {got}\n"
        "  expected: a dictionary with 'state' and 'param_groups', as state_dict() returns it"
    )


@pytest.mark.parametrize(
    ("mine", "saved"), [(torch.float64, torch.float32), (torch.float32, torch.float64)]
)
def test_state_of_another_precision_is_cast_as_torch_does(mine, saved):
    def made(cls, dtype):
        w = torch.nn.Parameter(torch.ones(5, dtype=dtype))
        optimizer = cls([w], lr=0.1)
        w.grad = torch.linspace(-1, 1, 5, dtype=dtype)
        optimizer.step()
        return optimizer, w

    state = made(torch.optim.Adam, saved)[0].state_dict()
    (a, w), (b, v) = made(ravine.optim.Adam, mine), made(torch.optim.Adam, mine)
    a.load_state_dict(copy.deepcopy(state))
    b.load_state_dict(copy.deepcopy(state))
    assert a.state[w]["exp_avg"].dtype is mine
    a.step()
    b.step()
    torch.testing.assert_close(w, v)


# -- a new learning rate --------------------------------------------------------------------------


def test_a_new_lr_may_be_kept_while_loading():
    saver, _ = trained(lr=0.1, betas=(0.5, 0.6))
    loader, _ = trained(lr=0.025)
    loader.load_state_dict(saver.state_dict(), keep=["lr"])
    assert loader.param_groups[0]["lr"] == 0.025
    assert loader.param_groups[0]["betas"] == (0.5, 0.6)


def test_a_new_schedule_goes_on_where_the_old_one_was():
    saver, _ = trained(lr=cosine(100, peak=1.0))
    new = cosine(100, peak=0.5)
    loader, ws = trained(lr=new)
    loader.load_state_dict(saver.state_dict(), keep=["lr"])
    step(loader, ws, 1)
    assert loader.param_groups[0]["schedule"] == new
    assert loader.param_groups[0]["lr"] == new(3)
    number, ws = trained(lr=0.7)
    number.load_state_dict(saver.state_dict(), keep=["lr"])
    step(number, ws, 1)
    assert number.param_groups[0]["lr"] == 0.7


def test_a_new_lr_under_a_torch_scheduler():
    saver, _ = trained(lr=0.1)
    torch.optim.lr_scheduler.StepLR(saver, 2)
    loader, _ = trained(lr=0.5)
    loader.load_state_dict(saver.state_dict(), keep=["lr"])
    assert torch.optim.lr_scheduler.StepLR(loader, 2).base_lrs == [0.5]


def test_an_unknown_option_to_keep():
    loader, _ = trained()
    assert refused(loader, loader.state_dict(), keep=["momentum"]).startswith(
        "Adam has no option 'momentum' to keep\n  where:    Adam.load_state_dict, keep\n"
    )


def test_a_plateau_is_not_touched_by_a_load_that_fails():
    heard = plateau(1.0, patience=0)
    saver, _ = trained(lr=plateau(1.0, patience=0), names=["in", "bias"], named=False)
    for value in (1.0, 2.0, 3.0):
        saver.observe(value)
    loader, _ = trained(lr=heard, names=["bias", "in"], named=False)
    refused(loader, saver.state_dict(), ShapeError)
    assert heard(0) == 1.0
    assert loader.param_groups[0]["schedule"] is heard
    loader, _ = trained(lr=heard, names=["in", "bias"], named=False)
    loader.load_state_dict(saver.state_dict())
    assert loader.param_groups[0]["schedule"] is heard
    assert heard(0) < 0.1
