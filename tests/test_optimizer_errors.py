"""What is said when an optimizer is made or used wrongly, word for word."""

from __future__ import annotations

import math

import pytest
import torch

import ravine.optim
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendWarning,
    RavineError,
    UnknownOptionError,
)


def weight():
    return torch.nn.Parameter(torch.ones(3))


def message(rule="Adam", **options):
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(ravine.optim, rule)([weight()], **options)
    assert isinstance(caught.value, RavineError)
    return caught.value


BOUNDS = [
    ("Adam", {"lr": -0.1}, "-0.1", "a number >= 0, or a schedule"),
    ("Adam", {"lr": math.nan}, "nan", "a number >= 0, or a schedule"),
    ("Adam", {"lr": math.inf}, "inf", "a number >= 0, or a schedule"),
    ("Adam", {"lr": torch.tensor(-1.0)}, "tensor(-1.)", "a number >= 0, or a schedule"),
    ("Adam", {"betas": (0.9, 1.0)}, "(0.9, 1.0)", "2 numbers in [0, 1)"),
    ("Adam", {"betas": (-0.1, 0.9)}, "(-0.1, 0.9)", "2 numbers in [0, 1)"),
    ("Adam", {"betas": (0.9,)}, "(0.9,)", "2 numbers in [0, 1)"),
    ("Adam", {"betas": (0.9, math.nan)}, "(0.9, nan)", "2 numbers in [0, 1)"),
    ("Adam", {"eps": -1e-8}, "-1e-08", "a number >= 0"),
    ("SGD", {"momentum": -0.5}, "-0.5", "a number >= 0"),
    ("SGD", {"dampening": math.nan}, "nan", "a finite number"),
    ("Momentum", {"beta": 1.0}, "1.0", "a number in [0, 1)"),
    ("RMSprop", {"alpha": 1.5}, "1.5", "a number in [0, 1]"),
    ("SGD", {"weight_decay": -1}, "-1", "a number >= 0"),
    ("SGD", {"l1": -1.0}, "-1.0", "a number >= 0"),
    ("SGD", {"l2": math.inf}, "inf", "a number >= 0"),
    ("SGD", {"clip_norm": 0}, "0", "a number > 0, or None"),
    ("SGD", {"clip_value": -2.0}, "-2.0", "a number > 0, or None"),
    ("SGD", {"average": 1.0}, "1.0", "a number in [0, 1), or None"),
    ("SGD", {"nesterov": 1}, "1", "True or False"),
    ("SGD", {"lr": True}, "True", "a number >= 0, or a schedule"),
    ("SGD", {"weight_decay": False}, "False", "a number >= 0"),
    ("SGD", {"clip_norm": True}, "True", "a number > 0, or None"),
    ("Adam", {"betas": (False, 0.9)}, "(False, 0.9)", "2 numbers in [0, 1)"),
    (
        "SGD",
        {"decay": "coupeld"},
        "'coupeld'",
        "'coupled', 'decoupled' (times lr) or 'independent' (of lr)",
    ),
    ("SGD", {"backend": "llvm"}, "'llvm'", "one of auto, reference, cpu, gpu"),
]


@pytest.mark.parametrize(("rule", "options", "got", "expected"), BOUNDS, ids=str)
def test_values_out_of_their_bounds(rule, options, got, expected):
    (name,) = options
    error = message(rule, **options)
    assert isinstance(error, ArgumentError)
    assert str(error) == (
        f"{name} has a value that cannot be used\n  where:    {rule}, group 0, option {name}\n"
        f"  got:      {got}\n  expected: {expected}"
    )


@pytest.mark.parametrize(
    ("options", "got", "expected"),
    [
        ({"lr": "0.1"}, "'0.1' (str)", "a number >= 0, or a schedule"),
        ({"lr": None}, "None (NoneType)", "a number >= 0, or a schedule"),
        ({"betas": 0.9}, "0.9 (float)", "2 numbers in [0, 1)"),
        ({"betas": ("a", "b")}, "('a', 'b') (tuple)", "2 numbers in [0, 1)"),
        ({"eps": [1]}, "[1] (list)", "a number >= 0"),
        ({"clip_norm": "1"}, "'1' (str)", "a number > 0, or None"),
    ],
    ids=str,
)
def test_values_of_the_wrong_type(options, got, expected):
    (name,) = options
    error = message(**options)
    assert isinstance(error, ArgumentTypeError)
    assert str(error) == (
        f"{name} has a value of the wrong type\n  where:    Adam, group 0, option {name}\n"
        f"  got:      {got}\n  expected: {expected}"
    )


@pytest.mark.parametrize(
    ("rule", "wrong", "near"),
    [
        ("Adam", "beta", "betas"),
        ("Adam", "weight_decy", "weight_decay"),
        ("Adam", "learning_rate", ""),
        ("SGD", "nestrov", "nesterov"),
        ("SGD", "momentun", "momentum"),
        ("RMSprop", "centred", "centered"),
        ("Adam", "clipnorm", "clip_norm"),
    ],
)
def test_a_misspelt_option_and_the_nearest_one(rule, wrong, near):
    error = message(rule, **{wrong: 0.5})
    assert isinstance(error, UnknownOptionError)
    known = ", ".join(getattr(ravine.optim, rule).options)
    lines = [f"{rule} has no option {wrong!r}", f"  expected: one of {known}"]
    if near:
        lines.append(f"  do:       did you mean {near!r}?")
    assert str(error).splitlines()[:2] == lines[:2]
    if near:
        assert str(error).splitlines() == lines


def test_a_misspelt_option_of_a_group():
    with pytest.raises(UnknownOptionError) as caught:
        ravine.optim.Adam([{"params": [weight()], "weight_decy": 0.1}])
    assert str(caught.value).startswith("Adam, group 0: has no option 'weight_decy'")
    assert str(caught.value).endswith("did you mean 'weight_decay'?")


def test_the_group_of_a_bad_value_is_named():
    with pytest.raises(ArgumentError, match=r"SGD, group 1, option lr"):
        ravine.optim.SGD([{"params": [weight()]}, {"params": [weight()], "lr": -1.0}], lr=0.1)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_without_momentum(options):
    error = message("SGD", nesterov=True, **options)
    assert str(error) == (
        "Nesterov's look-ahead needs a momentum and no dampening\n"
        f"  got:      momentum={options.get('momentum', 0.0)}, "
        f"dampening={options.get('dampening', 0.0)}\n"
        "  expected: momentum > 0 and dampening = 0"
    )


def test_torchs_own_errors_stay():
    w = weight()
    with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
        ravine.optim.Adam([])
    with pytest.raises(TypeError, match="params argument given to the optimizer should be"):
        ravine.optim.Adam(w)
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        ravine.optim.Adam([w * 2])
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter"):
        ravine.optim.Adam([{"params": [w]}, {"params": [w]}])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        ravine.optim.Adam([w, w])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_sparse_gradient(backend):
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = ravine.optim.Adam(table.parameters(), backend=backend)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ArgumentTypeError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        "a gradient is sparse\n  where:    a weight of shape (5, 2)\n  got:      torch.sparse_coo\n"
        "  expected: a dense gradient\n"
        "  do:       make the embedding with sparse=False, or use torch.optim.SparseAdam"
    )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_gradient_that_becomes_sparse(backend):
    w = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = ravine.optim.SGD([w], lr=0.1, backend=backend)
    w.grad = torch.ones(3, 2)
    optimizer.step()
    w.grad = torch.ones(3, 2).to_sparse()
    with pytest.raises(ArgumentTypeError, match="a gradient is sparse"):
        optimizer.step()


def test_a_backend_that_cannot_run_here():
    gaps = torch.nn.Parameter(torch.ones(4, 4)[:, ::2])
    gaps.grad = torch.ones(4, 2)
    with pytest.raises(ArgumentError) as caught:
        ravine.optim.SGD([gaps], lr=0.1, backend="cpu").step()
    assert str(caught.value) == (
        "backend='cpu' cannot be used\n"
        "  got:      the tensor is a view with gaps or overlaps\n  do:       leave backend='auto'"
    )


def test_a_cpu_weight_is_not_stepped_by_the_gpu_executor():
    w = weight()
    w.grad = torch.ones(3)
    with pytest.raises(ArgumentError, match="backend='gpu' cannot be used"):
        ravine.optim.SGD([w], lr=0.1, backend="gpu").step()


def test_the_bare_class():
    with pytest.raises(ArgumentTypeError, match="Optimizer has no rule of its own"):
        ravine.optim.Optimizer([weight()], lr=0.1)


def test_an_unknown_optimizer():
    with pytest.raises(AttributeError, match="has no optimizer 'Adm'"):
        ravine.optim.Adm


def test_a_warning_is_an_error_in_this_suite():
    import warnings

    with pytest.raises(BackendWarning):
        warnings.warn("slower", BackendWarning, stacklevel=1)
