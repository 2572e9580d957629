"""Curves, dropout and penalties: the probes by hand, the checks on a made fault and its twin."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from faulty_programs import clusters, evidence_of, line, names, net, program
from torch import nn

from ravine import diagnose
from ravine.diagnose.checks.fit import fit_checks
from ravine.diagnose.checks.regularisation import regularisation_checks
from ravine.diagnose.probes.curves import curves_of
from ravine.diagnose.probes.dropout import held
from ravine.diagnose.replay import Trace


def trace(valid, train=None, good=1.0, valid_good=0.8):
    train = train or [1 / (k + 1) for k in range(len(valid))]
    return Trace(
        train_loss=train, valid_loss=valid, epochs_seen=list(range(1, len(valid) + 1)),
        train_quality=[good] * len(valid), valid_quality=[valid_good] * len(valid),
    )  # fmt: skip


def test_curves_by_hand():
    seen = curves_of(trace([5.0, 3.0, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]))
    assert seen is not None
    # Medians of three: 5, 3, 2.5, 2.5, 3, ...: the first of the least is the third.
    assert (seen.best, seen.best_epoch, seen.last) == (2.5, 3, 4.0)
    assert seen.rise == pytest.approx(0.6)
    assert seen.gap == pytest.approx(0.2)
    assert seen.fell == pytest.approx((1 / 3 - 1 / 7) * 3)


def test_the_noise_of_a_curve_is_that_of_its_points():
    random = torch.Generator().manual_seed(0)
    points = 1 + 0.1 * torch.randn(2000, generator=random)
    seen = curves_of(trace(points.tolist()))
    assert seen is not None and seen.noise == pytest.approx(0.1, rel=0.1)


def test_curves_too_short_or_not_finite_have_no_shape():
    assert curves_of(trace([1.0, 2.0])) is None
    assert curves_of(trace([1.0, 2.0, float("nan"), 1.0, 1.0, 1.0])) is None


def test_overfitting_and_its_twin_of_more_rows():
    few, many, valid = (clusters(n, spread=1.2, seed=n) for n in (40, 1500, 300))

    def run(train, epochs):
        return program(
            train, lambda: net(3, 128, 128, 3), nn.CrossEntropyLoss(), valid=valid, epochs=epochs
        )  # fmt: skip

    found = list(fit_checks(evidence_of(run(few, 60))))
    assert names(found) == ["overfitting"]
    assert found[0].measure == "valid/loss"
    assert names(fit_checks(evidence_of(run(many, 3)))) == []


def test_a_model_short_of_the_baseline_underfits_and_noise_does_not():
    short = program(clusters(200), lambda: net(3, 1, 1, 3), "cross_entropy", epochs=3)
    found = list(fit_checks(evidence_of(short)))
    assert names(found) == ["underfitting"] and found[0].last_resort
    noisy = program(line(300, noise=1.0), lambda: nn.Linear(4, 1), "mse", epochs=30)
    assert names(fit_checks(evidence_of(noisy))) == []


class Late(nn.Module):
    """Defined in another order than it is run: only a pass shows that the dropout is last."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(p)
        self.inner = nn.Linear(4, 8)
        self.outer = nn.Linear(8, 1)

    def forward(self, x):
        return self.drop(self.outer(self.inner(x).relu()))


def test_dropout_on_the_output_is_told_by_the_order_of_a_pass():
    late = evidence_of(program(line(64), lambda: Late(0.5), "mse"))
    assert late.probe(held).after_the_last == ("drop",)
    assert names(regularisation_checks(late)) == ["dropout-misplaced"]
    off = evidence_of(program(line(64), lambda: Late(0.0), "mse"))
    assert names(regularisation_checks(off)) == []


@pytest.mark.parametrize(
    ("optimizer", "which"),
    [
        (partial(torch.optim.AdamW, lr=0.01, weight_decay=2.0), "weight_decay"),
        ("sgd(lr=0.05, l2=2.0)", "l2"),
        ("sgd(lr=0.05, l1=2.0)", "l1"),
    ],
    ids=["torch", "l2", "l1"],
)
def test_penalties_of_torch_and_of_expressions(optimizer, which):
    run = program(line(100), lambda: nn.Linear(4, 1), "mse", optimizer=optimizer)
    seen = evidence_of(run).probe(held)
    assert (seen.penalty, seen.which) == (2.0, which)


def test_too_much_decay_is_a_finding_with_its_repair():
    optimizer = partial(torch.optim.AdamW, lr=0.02, weight_decay=50.0)
    found = diagnose(
        program(clusters(300), lambda: net(3, 16, 3), "cross_entropy", optimizer=optimizer),
        budget=90,
    )
    first = found.findings[0]
    assert first.name == "over-regularised"
    assert first.treatments[0].helped and len(first.treatments[0].control) == 3


def test_decay_that_does_no_harm_is_none():
    optimizer = partial(torch.optim.AdamW, lr=0.02, weight_decay=0.5)
    found = diagnose(
        program(clusters(300), lambda: net(3, 16, 3), "cross_entropy", optimizer=optimizer),
        budget=90,
    )
    assert found.findings == [] and found.verdict == "healthy"
