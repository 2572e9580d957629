"""How an optimizer is called: torch's order, names and defaults."""

from __future__ import annotations

import inspect

import pytest
import torch

import ravine.optim
from ravine.errors import ArgumentTypeError, UnknownOptionError

SHARED = [name for name in ravine.optim.OPTIMIZERS if hasattr(torch.optim, name)]
each = pytest.mark.parametrize("name", SHARED)


def weight():
    return torch.nn.Parameter(torch.ones(3, 3))  # torch's Muon takes matrices alone


def torch_parameters(name):
    return inspect.signature(getattr(torch.optim, name)).parameters


@each
def test_defaults_are_torchs(name):
    ours = getattr(ravine.optim, name)([weight()]).defaults
    theirs = getattr(torch.optim, name)([weight()]).defaults
    shared = ours.keys() & theirs.keys()
    assert {"lr", "maximize"} & theirs.keys() <= shared
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}


@each
def test_torchs_positional_order(name):
    positional = [
        p.name for p in torch_parameters(name).values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ][1:]
    taken = getattr(ravine.optim, name).options
    order = positional[: max(k for k, p in enumerate(positional) if p in taken) + 1]
    # Defaults of torch, moved a little so that a swap is seen.
    values = [moved(torch_parameters(name)[p].default) for p in order]
    optimizer = getattr(ravine.optim, name)([weight()], *values)
    for option, value in zip(order, values, strict=True):
        if option in taken:
            assert optimizer.defaults[option] == value
    shown = list(inspect.signature(getattr(ravine.optim, name)).parameters.values())
    assert [p.name for p in shown if p.kind is p.POSITIONAL_OR_KEYWORD] == ["params", *order]
    assert all(p.default == torch_parameters(name)[p.name].default for p in shown[1 : len(order)])


def moved(value):
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    if isinstance(value, int):
        return value + 1
    return value * (1.04 if value >= 1 else 0.96) + 1 / 128  # within every bound


def test_sgd_as_it_is_often_written():
    w, v = weight(), weight()
    ours = ravine.optim.SGD([w], 0.1, 0.9, 0, 1e-4, True)
    theirs = torch.optim.SGD([v], 0.1, 0.9, 0, 1e-4, True)
    for _ in range(5):
        w.grad, v.grad = torch.arange(9.0).view(3, 3), torch.arange(9.0).view(3, 3)
        ours.step()
        theirs.step()
    torch.testing.assert_close(w, v)


def test_params_by_name_too():
    assert ravine.optim.Adam(params=[weight()], lr=0.5).param_groups[0]["lr"] == 0.5


def test_too_many_values_by_position():
    with pytest.raises(ArgumentTypeError) as caught:
        ravine.optim.Momentum([weight()], 0.1, 0.9)
    assert str(caught.value) == (
        "Momentum takes 1 option without name\n  got:      2: 0.1, 0.9\n"
        "  expected: params, lr\n  do:       write Momentum(params, lr, option=value)"
    )


def test_a_value_given_twice():
    with pytest.raises(UnknownOptionError) as caught:
        ravine.optim.SGD([weight()], 0.1, lr=0.2)
    assert str(caught.value) == ("SGD got 'lr' twice\n  got:      0.1 by position and 0.2 by name")


def test_groups_with_generators_and_names():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    optimizer = ravine.optim.Adam(
        (
            {"params": m.named_parameters(), "lr": lr}
            for m, lr in zip(model, (0.1, 0.2), strict=True)
        )
    )
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert optimizer.param_groups[1]["param_names"] == ["weight", "bias"]
    generated = ravine.optim.Adam([{"params": (w for w in model.parameters())}])
    assert len(generated.param_groups[0]["params"]) == 4


def test_names_on_some_weights_only():
    optimizer = ravine.optim.Adam(torch.nn.Linear(2, 1).named_parameters())
    with pytest.raises(ValueError, match="all optimizer param groups"):
        optimizer.add_param_group({"params": [weight()]})
    assert len(optimizer.param_groups) == 1


def test_a_set_of_weights_has_no_order():
    with pytest.raises(TypeError, match="ordered collections"):
        ravine.optim.Adam([{"params": {weight()}}])


@each
def test_pydoc_shows_the_equation_and_the_call(name):
    import pydoc

    text = pydoc.render_doc(getattr(ravine.optim, name), renderer=pydoc.plaintext)
    assert f"class {name}(" in text
    assert f"{name}(params, lr=" in text
    assert "Equation:" in text
