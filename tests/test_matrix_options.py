"""The options of every optimizer on matrix rules: as what they mean, done by hand."""

from __future__ import annotations

import pytest
import torch
from test_matrix_optimizers import NAMES, made, make, random_like, step
from test_matrix_state import SHAPES
from test_rules import assert_close, copies


def clipped(values, limit):
    norm = torch.sqrt(sum((g**2).sum() for g in values))
    return [g * min(1.0, limit / (float(norm) + 1e-6)) for g in values]


OF_GRADIENT = [
    ({"clip_norm": 0.7}, lambda w, g: clipped(g, 0.7)),
    ({"clip_value": 0.3}, lambda w, g: [x.clamp(-0.3, 0.3) for x in g]),
    ({"maximize": True}, lambda w, g: [-x for x in g]),
    ({"l2": 0.1}, lambda w, g: [x + 0.2 * y for x, y in zip(g, w, strict=True)]),
    ({"l1": 0.1}, lambda w, g: [x + 0.1 * y.sign() for x, y in zip(g, w, strict=True)]),
    (
        {"clip_norm": 0.7, "maximize": True, "l2": 0.1},
        lambda w, g: [0.2 * y - x for x, y in zip(clipped(g, 0.7), w, strict=True)],
    ),
]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("options", "change"), OF_GRADIENT)
@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_gradient(name, options, change, backend):
    """As without the option on gradients that were changed by hand, over matrices and the rest."""
    ours = made(*SHAPES)
    theirs = copies(ours)
    optimizer = make(name, ours, backend=backend, **options)
    plain = make(name, theirs, backend=backend)
    for k in range(4):
        values = random_like(ours)
        before = [w.detach().clone() for w in theirs]
        step(optimizer, *values)
        step(plain, *change(before, values))
        assert_close(ours, theirs, 1e-9, 1e-10, f"step {k}")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "Adafactor"])
def test_the_three_meanings_of_decay(name, backend):
    for decay in ("coupled", "decoupled", "independent"):
        ours = made(*SHAPES)
        theirs = copies(ours)
        optimizer = make(name, ours, backend=backend, weight_decay=0.1, decay=decay)
        plain = make(name, theirs, backend=backend, weight_decay=0.0)
        for _ in range(4):
            values = random_like(ours)
            step(optimizer, *values)
            if decay == "coupled":
                values = [g + 0.1 * w.detach() for g, w in zip(values, theirs, strict=True)]
            before = [w.detach().clone() for w in theirs]
            step(plain, *values)
            share = {"coupled": 0.0, "decoupled": 0.1 * 0.02, "independent": 0.1}[decay]
            with torch.no_grad():
                for w, b in zip(theirs, before, strict=True):
                    w.sub_(share * b)
            assert_close(ours, theirs, 1e-10, 1e-11, decay)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_average_and_soft_threshold(name, backend):
    ours = made(*SHAPES)
    theirs = copies(ours)
    options = {"average": 0.8, "l1": 2.0, "l1_proximal": True, "weight_decay": 0.0}
    optimizer = make(name, ours, backend=backend, **options)
    plain = make(name, theirs, backend=backend, weight_decay=0.0)
    wanted = [w.detach().clone() for w in ours]
    for k in range(5):
        values = random_like(ours)
        step(optimizer, *values)
        step(plain, *values)
        with torch.no_grad():
            for w in theirs:
                w.copy_(torch.nn.functional.softshrink(w, 0.02 * 2.0))
        wanted = [0.8 * a + 0.2 * w.detach() for a, w in zip(wanted, theirs, strict=True)]
        assert_close(ours, theirs, 1e-11, 1e-12, f"step {k}")
    before = [w.detach().clone() for w in ours]
    with optimizer.averaged():
        assert_close(ours, wanted, 1e-11, 1e-12, "average")
    assert_close(ours, before, 0, 0, "put back")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_cautious_keeps_what_goes_against_the_gradient(name, backend):
    """As the step without it from the same weights and state, cut by hand."""
    ours = made(*SHAPES)
    theirs = copies(ours)
    options = {"clip_norm": 0.7, "maximize": True, "weight_decay": 0.0, "backend": backend}
    optimizer = make(name, ours, cautious=True, l1=2.0, l1_proximal=True, **options)
    plain = make(name, theirs, **options)
    for k in range(5):
        values = random_like(ours)
        before = [w.detach().clone() for w in ours]
        with torch.no_grad():
            for w, b in zip(theirs, before, strict=True):
                w.copy_(b)
        step(optimizer, *values)
        step(plain, *values)
        wanted = []
        for w, b, g in zip(theirs, before, values, strict=True):
            kept = ((w.detach() - b).sign() == g.sign()).double()  # it climbs
            there = b + (w.detach() - b) * kept / kept.mean().clamp(min=1e-3)
            wanted.append(torch.nn.functional.softshrink(there, 0.02 * 2.0))
        assert_close(ours, wanted, 1e-11, 1e-12, f"step {k}")
