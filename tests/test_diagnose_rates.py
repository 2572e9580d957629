"""Rates, lengths and scales: the root comes first, its symptoms after it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from faulty_programs import clusters, evidence_of, net, program
from torch import nn
from torch.optim import SGD, Adam

from ravine import diagnose
from ravine.diagnose.checks.rates import rate_checks
from ravine.diagnose.probes.along import along, alpha

CLASSES = clusters(300)


def named_first(data, optimizer, **options):
    run = program(data, lambda: net(3, 16, 3), "cross_entropy", optimizer=optimizer, **options)
    found = diagnose(run, budget=90)
    return found.findings[0].name if found.findings else found.verdict


@pytest.mark.parametrize(
    ("optimizer", "epochs", "expected"),
    [
        (partial(SGD, lr=100.0), 10, {"lr-too-high"}),
        (partial(Adam, lr=1e-6), 10, {"lr-too-low"}),
        (partial(Adam, lr=1e-3), 1, {"too-few-epochs", "lr-too-low"}),
        (partial(Adam, lr=1e-2), 10, {"healthy"}),
    ],
    ids=["high", "low", "short", "healthy"],
)
def test_rates_and_lengths(optimizer, epochs, expected):
    assert named_first(CLASSES, optimizer, epochs=epochs) in expected


def test_a_rate_that_only_makes_up_for_the_scale_is_the_symptom():
    data = (CLASSES[0] * 300 + 500, CLASSES[1])
    assert named_first(data, partial(SGD, lr=0.1)) == "unscaled-inputs"


def test_a_run_that_is_not_finite_is_not_called_slow():
    run = program(
        (CLASSES[0], CLASSES[0][:, :1]), lambda: net(3, 16, 1), "mse",
        optimizer=partial(SGD, lr=1e6), epochs=2,
    )  # fmt: skip
    found = [one.finding.name for one in rate_checks(evidence_of(run))]
    assert found == ["lr-too-high"]


@pytest.mark.parametrize(("lr", "expected"), [(0.25, -0.5), (0.5, 0.0), (1.0, 1.0), (0.75, 0.5)])
def test_where_updates_end_on_a_parabola_that_is_known(lr, expected):
    # (w - x)^2 has curvature 2: lr 0.5 steps to the minimum, lr 1 to the other side.
    X = torch.full((64, 1), 3.0)
    run = program(
        (torch.ones(64, 1), X), lambda: nn.Linear(1, 1, bias=False), "mse",
        optimizer=partial(SGD, lr=lr), epochs=1,
    )  # fmt: skip
    seen = evidence_of(run).probe(along)
    assert seen.alphas[0] == pytest.approx(expected, abs=1e-4)


def test_a_step_uphill_and_a_slope_that_curves_down():
    assert alpha(0.0, 1.0, 2.0, 3.0) == 1.0  # up from the start
    assert alpha(0.0, -1.0, -2.0, -3.0) == -1.0  # ever faster down
