"""Matrix rules in lock-step with torch.optim and with their papers written out."""

from __future__ import annotations

import matrix_papers as papers
import pytest
import torch
from test_rules import assert_close, copies, set_gradients, views

import ravine.optim
from ravine.rules import MATRIX_RULES

DOUBLE = {"dtype": torch.float64}


def weights(dtype=torch.float64, *, square=False):
    """Two of one shape, tall, wide, a row, a column, stacked, kernels, odd layouts, no matrices.

    The square ones have no null space, in which an eigenbasis is arbitrary.
    """
    shapes = [(6, 4), (6, 4), (3, 7), (1, 5), (4, 1)]
    if square:
        shapes = [(4, 4), (4, 4), (3, 3), (1, 1), (5, 5)]
    tensors = [
        *(torch.randn(shape, dtype=torch.float64) for shape in shapes),
        torch.randn(2, 3, 4, **DOUBLE),
        torch.randn(4, 2, 3, 3, **DOUBLE).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 4, **DOUBLE).t() if square else torch.randn(5, 4, **DOUBLE).t(),
        torch.randn(9, 4, **DOUBLE)[::4, 1:4] if square else torch.randn(9, 4, **DOUBLE)[::2, 1:3],
        torch.randn(6, **DOUBLE),
        torch.randn((), **DOUBLE),
    ]
    return [torch.nn.Parameter(t.to(dtype)) for t in tensors]


def gradients(like, step):
    """Gradients of changing size, some laid out unlike their weights."""
    made = []
    for k, w in enumerate(like):
        g = 10.0 ** ((2 * step + k) % 3 - 1) * torch.randn(w.shape, **DOUBLE)
        made.append((g.mT.contiguous().mT if w.dim() > 1 and step % 2 else g).to(w.dtype))
    return made


def oracle(update, ours, rest, **numbers):
    """A function that returns what every weight must be after a step with these gradients."""
    wanted = [w.detach().clone() for w in ours]
    states = [{} for _ in ours]
    steps = [0 for _ in ours]

    def step(values):
        for k, g in enumerate(values):
            if g is not None:
                steps[k] += 1
                rule, options = (
                    rest if rest and ours[k].dim() < rest[0] else (0, update, numbers)
                )[1:]
                wanted[k] = rule(wanted[k], g, states[k], steps[k], **options)
        return wanted

    return step


MUON = {"lr": 0.02, "ns_dtype": "float64"}
CASES = [
    ("Muon", MUON),
    ("Muon", {**MUON, "nesterov": False, "momentum": 0.5, "weight_decay": 0.0}),
    ("Muon", {**MUON, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "eps": 1e-3}),
    ("Muon", {**MUON, "ns_coefficients": (2.0, -1.5, 0.5), "adjust_lr_fn": "original"}),
    ("Muon", {**MUON, "stacked": False}),
    ("Muon", {**MUON, "stacked": True}),
    ("Shampoo", {"lr": 0.1}),
    ("Shampoo", {"lr": 0.1, "momentum": 0.9, "epsilon": 1e-2, "weight_decay": 0.1}),
    ("Shampoo", {"lr": 0.1, "precondition_frequency": 4, "max_precond_dim": 4}),
    ("SOAP", {"lr": 0.01}),
    ("SOAP", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-4, "precondition_frequency": 3}),
    ("SOAP", {"lr": 0.01, "shampoo_beta": 0.8, "max_precond_dim": 4, "weight_decay": 0.0}),
]
BELOW = {"Muon": (2, {}), "SOAP": (2, {"betas": (0.95, 0.95)}), "Shampoo": (1, {})}


def paper_of(name, options, ours):
    decay = options.get("weight_decay", {"Muon": 0.1, "SOAP": 0.01, "Shampoo": 0.0}[name])
    dims, other = BELOW[name]
    rest = (dims, papers.adamw, {"lr": options["lr"], "weight_decay": decay, **other})
    own = {n: v for n, v in options.items() if n not in ("ns_dtype", "decay")}
    return oracle(getattr(papers, name.lower()), ours, rest, **own)


def same_decay(name, options):
    return {**options, "decay": "decoupled"} if name == "Shampoo" else options


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_lock_step_with_the_paper(name, options, backend):
    ours = views(weights(square=name == "SOAP"))
    groups = [{"params": ours[:8] + ours[9:], "backend": backend}, {"params": [ours[8]]}]
    optimizer = getattr(ravine.optim, name)(groups, **same_decay(name, options))
    step_of_paper = paper_of(name, options, ours)
    for step in range(15):
        values = gradients(ours, step)
        kept = [g.clone() for g in values]
        set_gradients(ours, values)
        optimizer.step()
        assert_close(ours, step_of_paper(values), 1e-9, 1e-10, f"step {step}")
        assert all(torch.equal(w.grad, g) for w, g in zip(ours, kept, strict=True))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["Muon", "SOAP", "Shampoo"])
def test_weights_without_gradient_count_their_own_steps(name, backend):
    ours = weights(square=name == "SOAP")
    options = {"Muon": MUON, "SOAP": {"lr": 0.01, "precondition_frequency": 2}}.get(
        name, {"lr": 0.1}
    )
    optimizer = getattr(ravine.optim, name)(ours[:8] + ours[9:], **options, backend=backend)
    step_of_paper = paper_of(name, options, ours)
    for step in range(12):
        values = gradients(ours, step)
        values = [g if (step + k) % 3 and k != 8 else None for k, g in enumerate(values)]
        set_gradients(ours, values)
        optimizer.step()
        assert_close(ours, step_of_paper(values), 1e-9, 1e-10, f"step {step}")
    assert int(optimizer.state[ours[0]]["step"]) == int(optimizer.state[ours[9]]["step"]) == 8


def test_every_hyperparameter_is_varied():
    for name, rule in MATRIX_RULES.items():
        if name != "Adafactor":
            given = set().union(*(options for n, options in CASES if n == name))
            assert set(rule.hyperparameters) <= given, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.02},
        {"lr": 0.02, "nesterov": False, "momentum": 0.5, "weight_decay": 0.0},
        {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "eps": 1e-3},
    ],
)
def test_muon_in_lock_step_with_torch(options, dtype):
    """Weights of different shapes are multiplied as torch does: to the last bits of the weights."""
    theirs = [w for w in weights(dtype) if w.dim() == 2][1:]
    ours = views(theirs)
    optimizer = ravine.optim.Muon(ours, **options)
    reference = torch.optim.Muon(theirs, **options)
    for step in range(15):
        values = gradients(theirs, step)
        set_gradients(ours, values)
        set_gradients(theirs, [g.clone() for g in values])
        optimizer.step()
        reference.step()
        # One rounding of the momentum to bfloat16 the other way is worth about 2^-8 of a step.
        assert_close(ours, theirs, 1e-5, 1e-5, f"step {step}")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.02},
        {"lr": 0.5, "beta2_decay": -0.5, "d": 2.0, "weight_decay": 0.1},
        {"lr": 0.02, "eps": (1e-2, 1e-1), "maximize": True},
        {"lr": 0.02, "eps": (0.0, 0.0)},
    ],
)
def test_adafactor_in_lock_step_with_torch(options, backend):
    theirs = weights()
    ours = views(theirs)
    groups = [{"params": ours[:8] + ours[9:], "backend": backend}, {"params": [ours[8]]}]
    optimizer = ravine.optim.Adafactor(groups, **options)
    reference = torch.optim.Adafactor(theirs, **options)
    for step in range(30):
        values = gradients(theirs, step)
        values = [None if step % 5 == 2 and k % 2 else g for k, g in enumerate(values)]
        set_gradients(ours, values)
        set_gradients(theirs, [g if g is None else g.clone() for g in values])
        optimizer.step()
        reference.step()
        assert_close(ours, theirs, 1e-12, 1e-13, f"step {step}")


@pytest.mark.parametrize("name", MATRIX_RULES)
def test_stacked_is_as_one_by_one(name):
    options = {"ns_dtype": "float64"} if name == "Muon" else {}
    together = weights(square=name == "SOAP")
    alone = copies(together)
    stacked = getattr(ravine.optim, name)(together, lr=0.05, **options)
    each = [getattr(ravine.optim, name)([w], lr=0.05, **options) for w in alone]
    for step in range(12):
        values = gradients(together, step)
        set_gradients(together, values)
        set_gradients(alone, values)
        stacked.step()
        for optimizer in each:
            optimizer.step()
        assert_close(together, alone, 1e-11, 1e-11, f"step {step}")


@pytest.mark.parametrize("name", MATRIX_RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_smaller_types_follow_float64(name, dtype):
    options = {"ns_dtype": "float32"} if name == "Muon" else {}
    ours = weights(dtype, square=name == "SOAP")
    exact = [torch.nn.Parameter(w.detach().double()) for w in ours]
    small = getattr(ravine.optim, name)(ours, lr=0.01, **options)
    large = getattr(ravine.optim, name)(exact, lr=0.01, **options)
    for step in range(5):
        values = gradients(ours, step)
        set_gradients(ours, values)
        set_gradients(exact, [g.double() for g in values])
        small.step()
        large.step()
    near = 1e-3 if dtype is torch.float32 else 0.05
    assert_close([w.double() for w in ours], exact, near, near, "5 steps")
    kept = {t.dtype for s in small.state.values() for n, t in s.items() if n != "step"}
    assert kept == {torch.float32}
