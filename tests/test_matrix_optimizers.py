"""Matrix optimizers as optimizers: routing, groups, options, saving, errors."""

from __future__ import annotations

import pytest
import torch
from test_rules import assert_close, copies, set_gradients

import ravine.optim
from ravine.errors import ArgumentError, ArgumentTypeError, ShapeError, UnknownOptionError
from ravine.optim import SOAP, Adafactor, Muon
from ravine.rules import MATRIX_RULES
from ravine.schedules import cosine

NAMES = sorted(MATRIX_RULES)


def made(*shapes, dtype=torch.float64):
    return [torch.nn.Parameter(torch.randn(s, dtype=dtype)) for s in shapes]


def options_of(name):
    return {"ns_dtype": "float64"} if name == "Muon" else {}


def make(name, params, **options):
    return getattr(ravine.optim, name)(params, **{**options_of(name), "lr": 0.02, **options})


def step(optimizer, *values):
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    set_gradients(weights, values)
    optimizer.step()


def random_like(weights):
    return [torch.randn_like(w).detach() for w in weights]


def model():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 6), torch.nn.Linear(6, 3)
    )
    return layers.double()


# -- routing ----------------------------------------------------------------------------------


def test_explain_says_which_weight_goes_where_and_why():
    network = model()
    named = list(network.named_parameters())
    optimizer = Muon(
        [{"params": named[:4]}, {"params": named[4:], "matrix": False}], lr=0.1, backend="cpu"
    )
    text = optimizer.explain()
    assert "group 0, Muon: 2 tensors: 0.weight, 2.weight" in text
    assert "group 0, AdamW (1 dimension): 2 tensors: 0.bias, 2.bias" in text
    assert "group 1, AdamW (matrix=False): 2 tensors: 3.weight, 3.bias" in text
    for w in network.parameters():
        w.grad = torch.ones_like(w)
    optimizer.step()
    text = optimizer.explain()
    assert "Muon of 1 x (4, 1, 3, 3): cpu passes around orthogonalise" in text
    assert "4 tensors, 31 weights, torch.float64: cpu kernel of decoupled_decay + adam" in text
    assert "Muon(lr=0.1, backend='cpu')  # 2 groups" in repr(optimizer)


def test_equal_shapes_are_one_stack_also_across_groups():
    weights = made((3, 4), (3, 4), (3, 4))
    alone = copies(weights)
    groups = [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.5}]
    optimizer = make("Muon", groups, lr=0.1)
    each = [make("Muon", [w], lr=lr) for w, lr in zip(alone, (0.1, 0.1, 0.5), strict=True)]
    for _ in range(5):
        values = random_like(weights)
        step(optimizer, *values)
        for one, g in zip(each, values, strict=True):
            step(one, g)
    assert_close(weights, alone, 1e-12, 1e-13, "groups")
    assert "3 tensors, 36 weights, torch.float64: Muon of 3 x (3, 4)" in optimizer.explain()


def test_other_options_split_the_call_not_the_numbers():
    weights = made((3, 4), (3, 4))
    alone = copies(weights)
    groups = [{"params": weights[:1]}, {"params": weights[1:], "ns_steps": 2}]
    optimizer = make("Muon", groups)
    each = [make("Muon", alone[:1]), make("Muon", alone[1:], ns_steps=2)]
    for _ in range(3):
        values = random_like(weights)
        step(optimizer, *values)
        for one, g in zip(each, values, strict=True):
            step(one, g)
    assert_close(weights, alone, 1e-12, 1e-13, "groups")


def test_the_rest_is_stepped_as_by_adamw():
    ours = made((3, 4), (5,), (2, 2))
    theirs = copies(ours)
    optimizer = Muon(
        [{"params": ours[:2]}, {"params": ours[2:], "matrix": False, "lr": 0.3}],
        lr=0.1,
        adamw_lr_ratio=0.5,
        adamw_betas=(0.8, 0.9),
        adamw_eps=1e-3,
        adamw_weight_decay=0.2,
    )
    groups = [{"params": theirs[1:2], "lr": 0.05}, {"params": theirs[2:], "lr": 0.15}]
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2)
    for k in range(10):
        values = random_like(ours)
        if k == 4:  # lr is read anew at every step
            optimizer.param_groups[0]["lr"], reference.param_groups[0]["lr"] = 0.02, 0.01
        set_gradients(theirs, values)
        step(optimizer, *values)
        reference.step()
        assert_close(ours[1:], theirs[1:], 1e-12, 1e-13, "AdamW")


def test_a_schedule_drives_both_parts():
    ours = made((3, 4), (5,))
    theirs = copies(ours)
    schedule = cosine(8, peak=0.1)
    optimizer = make("Muon", ours, lr=schedule)
    constant = make("Muon", theirs, lr=0.0)
    for k in range(8):
        values = random_like(ours)
        constant.param_groups[0]["lr"] = schedule(k)
        step(optimizer, *values)
        step(constant, *values)
    assert_close(ours, theirs, 0, 0, "schedule")


@pytest.mark.parametrize("name", ["Muon", "SOAP"])
def test_matrix_true_asks_for_matrices(name):
    with pytest.raises(ArgumentError) as caught:
        make(name, made((3, 4), (5,)), matrix=True)
    text = str(caught.value)
    assert f"{name} cannot step a weight" in text
    assert "shape (5,), torch.float64: 1 dimension" in text
    assert "matrix=None: AdamW steps it then" in text
    optimizer = make(name, made((3, 4)))
    with pytest.raises(ArgumentError, match="cannot step a weight"):
        optimizer.add_param_group({"params": made((5,)), "matrix": True})
    assert len(optimizer.param_groups) == 1


def test_complex_and_empty_weights():
    weights = [
        torch.nn.Parameter(torch.randn(3, 3, dtype=torch.complex128)),
        *made((0, 3), (3, 0), (2, 2)),
    ]
    optimizer = Muon(weights, lr=0.1)
    text = optimizer.explain()
    assert "AdamW (complex numbers): 1 tensors: (3, 3)" in text
    assert "AdamW (no elements): 2 tensors" in text
    before = weights[0].detach().clone()
    step(optimizer, *random_like(weights))
    assert not torch.equal(weights[0], before)
    with pytest.raises(ArgumentError, match="complex numbers"):
        Adafactor(weights[:1])
    step(Adafactor(weights[1:]), *random_like(weights[1:]))
    assert all(w.isfinite().all() for w in weights)


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("Muon", {"ns_steps": 100}, "a whole number from 0 to 99"),
        ("Muon", {"ns_steps": 2.5}, "a whole number from 0 to 99"),
        ("Muon", {"ns_coefficients": (1.0, 2.0)}, "3 numbers"),
        ("Muon", {"ns_dtype": "int8"}, "'bfloat16'"),
        ("Muon", {"adjust_lr_fn": "none"}, "match_rms_adamw"),
        ("Muon", {"stacked": "yes"}, "True, False or None"),
        ("Muon", {"matrix": "no"}, "None (by shape)"),
        ("Muon", {"adamw_betas": (0.9, 1.0)}, "numbers in [0, 1)"),
        ("Muon", {"adamw_lr_ratio": -1.0}, "a number >= 0"),
        ("Muon", {"adamw_eps": -1.0}, "a number >= 0"),
        ("Muon", {"adamw_weight_decay": -1.0}, "a number >= 0, or None"),
        ("SOAP", {"precondition_frequency": 0}, "a whole number > 0"),
        ("SOAP", {"precondition_frequency": 1.5}, "a whole number > 0"),
        ("SOAP", {"shampoo_beta": 1.0}, "a number in [0, 1)"),
        ("SOAP", {"max_precond_dim": -1}, "a whole number >= 0"),
        ("Shampoo", {"epsilon": 0.0}, "a number > 0"),
        ("Adafactor", {"beta2_decay": 0.5}, "a number <= 0"),
        ("Adafactor", {"eps": (None, -1.0)}, "the first or None"),
        ("Adafactor", {"eps": (1e-3, None)}, "the first or None"),
        ("Adafactor", {"d": 0.5}, "a number >= 1"),
    ],
)
def test_bounds(name, options, text):
    with pytest.raises((ArgumentError, ArgumentTypeError)) as caught:
        make(name, made((2, 2)), **options)
    assert text in str(caught.value)
    assert next(iter(options)) in str(caught.value)


def test_options_that_are_not_there():
    with pytest.raises(UnknownOptionError, match="adamw_betas"):
        Adafactor(made((2, 2)), adamw_betas=(0.9, 0.9))


@pytest.mark.parametrize("name", NAMES)
def test_a_sparse_gradient(name):
    weight = made((3, 2))[0]
    weight.grad = torch.zeros(3, 2, dtype=torch.float64).to_sparse()
    with pytest.raises(ArgumentTypeError, match="sparse"):
        make(name, [weight]).step()


def test_state_of_another_shape():
    weight = made((3, 2))[0]
    optimizer = SOAP([weight], max_precond_dim=2)
    step(optimizer, torch.randn_like(weight))
    optimizer.param_groups[0]["max_precond_dim"] = 10
    with pytest.raises(ArgumentError, match="the state lacks 'GG_0', which SOAP keeps") as caught:
        step(optimizer, torch.randn_like(weight))
    assert "delete optimizer.state[weight]" in str(caught.value)
    optimizer.state[weight]["GG_0"] = torch.zeros(2, 2)
    with pytest.raises(ShapeError, match="'GG_0' does not fit") as caught:
        step(optimizer, torch.randn_like(weight))
    assert "shape (3, 3)" in str(caught.value)
    del optimizer.state[weight]
    step(optimizer, torch.randn_like(weight))


def test_a_route_changed_in_the_middle():
    weight = made((3, 2))[0]
    optimizer = make("Muon", [weight])
    step(optimizer, torch.randn_like(weight))
    optimizer.param_groups[0]["matrix"] = False
    step(optimizer, torch.randn_like(weight))
    assert "Muon of" not in optimizer.explain()
    assert optimizer.state[weight]["exp_avg"].shape == (3, 2)


def test_tied_weights_are_both_stepped():
    """Two parameters over the same memory take one step after the other, as torch's."""
    memory = torch.randn(4, 4, dtype=torch.float64)
    ours = [torch.nn.Parameter(memory), torch.nn.Parameter(memory)]
    apart = [torch.nn.Parameter(memory.clone())]
    kept = apart[0].detach().clone()
    values = random_like(ours)
    optimizer = make("Muon", ours, weight_decay=0.0)
    step(optimizer, *values)
    for g in values:
        step(make("Muon", apart, weight_decay=0.0), g)
    torch.testing.assert_close(ours[0].detach() - kept, apart[0].detach() - kept)
    assert optimizer.explain().count("Muon of 1 x (4, 4)") == 2  # launches of their own


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_nan_gradients(name):
    weights = made((3, 3), (3, 3), (4,))
    kept = [w.detach().clone() for w in weights]
    optimizer = make(name, weights, weight_decay=0.0)
    for _ in range(3):
        step(optimizer, *[torch.zeros_like(w) for w in weights])
    assert_close(weights, kept, 0, 0, "zero gradient")
    step(optimizer, torch.full_like(weights[0], torch.nan), *random_like(weights[1:]))
    step(optimizer, *random_like(weights))
    assert weights[0].isnan().any()
    assert weights[1].isfinite().all()
    assert weights[2].isfinite().all()
