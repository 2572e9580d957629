"""A remedy has to be clearly better than a change that treats nothing."""

from __future__ import annotations

import random

import pytest
import torch
from faulty_programs import clusters, evidence_of, net, program
from torch import nn

from ravine.diagnose.evidence import AS_IT_IS
from ravine.diagnose.program import Change
from ravine.diagnose.settling import Case, settle
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.control import ORDER, RATES, SHUFFLED, control_of
from ravine.diagnose.treatments.model import HE
from ravine.diagnose.treatments.steps import batches_of, times_epochs, times_lr
from ravine.diagnose.trials import beats, controlled, helps
from ravine.watch.finding import Finding, Trial

INF, NAN = float("inf"), float("nan")
TINY = program(clusters(200), lambda: net(3, 8, 3), "cross_entropy",
               optimizer=lambda weights: torch.optim.SGD(weights, lr=1e-4), epochs=5)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "control", "expected"),
    [
        ([0.5] * 3, [0.1] * 3, [0.5] * 3, True),
        ([0.5] * 3, [0.1] * 3, [0.31] * 3, True),
        ([0.5] * 3, [0.1] * 3, [0.29] * 3, False),  # more than half of the gain by doing nothing
        ([0.5] * 3, [0.1] * 3, [0.1, 0.5, 0.5], True),  # a control that is lucky once
        ([0.5] * 3, [0.1] * 3, [0.9] * 3, True),
        ([0.5] * 3, [0.1] * 3, [NAN] * 3, True),
        ([INF] * 3, [0.1] * 3, [INF, 0.1, 0.1], True),
        ([INF] * 3, [0.1] * 3, [0.11] * 3, False),
    ],
)
def test_clearly_better_than_a_control(before, after, control, expected):
    assert beats(before, after, control) is expected


def test_noise_alone_passes_half_as_often_as_without_a_control():
    """The figures of the docstring: three seeds each, deviation half of the mean."""
    drawn = random.Random(0)

    def three():
        return [abs(drawn.gauss(0.5, 0.25)) for _ in range(3)]

    tries = [(three(), three(), three()) for _ in range(20_000)]
    helped = [(b, a, c) for b, a, c in tries if helps(b, a)]
    kept = [one for one in helped if beats(*one)]
    assert len(helped) / len(tries) == pytest.approx(0.11, abs=0.01)
    assert len(kept) / len(tries) == pytest.approx(0.055, abs=0.007)


@pytest.mark.parametrize("remedy", [times_lr(0.1), times_epochs(4.0), batches_of(8)])
def test_half_a_remedy_is_no_control_of_a_whole_one(remedy):
    drawn = {control_of(remedy, "lr-too-high", seed) for seed in range(50)}
    assert drawn == {ORDER, SHUFFLED}
    assert {control_of(HE, "bad-init", seed) for seed in range(50)} == {ORDER, SHUFFLED, *RATES}
    assert control_of(HE, "bad-init", 7) is control_of(HE, "bad-init", 7)


def test_another_order_changes_the_batches_and_nothing_else():
    evidence = evidence_of(TINY)
    plain, other = evidence.fresh(), evidence.fresh(ORDER)
    for one, two in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
    first, second = (torch.cat([y for _, y in f.train.epoch(1)]) for f in (plain, other))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


def test_weights_in_other_places_are_the_same_numbers():
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2))
    before = [weight.detach().clone() for weight in model.parameters()]
    assert SHUFFLED.model is not None
    SHUFFLED.model(model)
    for old, new in zip(before, model.parameters(), strict=True):
        assert old.shape == new.shape
        assert torch.equal(old.flatten().sort().values, new.detach().flatten().sort().values)
    assert not torch.equal(before[0], model[0].weight)


def test_a_remedy_that_does_no_better_than_its_control_does_not_help():
    evidence = evidence_of(TINY)
    remedy = times_lr(300.0)
    tried = Trial(remedy.says, (0.6,) * 3, (0.1,) * 3, "1 - accuracy", True)
    same = controlled(evidence, tried, remedy, [0, 1, 2], "error")
    assert not same.helped and same.control_remedy == remedy.says and len(same.control) == 3
    nothing = controlled(evidence, tried, AS_IT_IS, [0, 1, 2], "error")
    assert nothing.helped and len(nothing.control) == 3


def test_without_time_for_the_control_the_trial_stays_as_it_is():
    tried = Trial("x", (0.6,) * 3, (0.1,) * 3, "1 - accuracy", True)
    assert controlled(evidence_of(TINY, seconds=-1), tried, ORDER, [0, 1, 2], "error") == tried


def test_what_is_no_better_than_chance_is_no_finding(monkeypatch):
    """The control is made the remedy itself: the suspicion that it supported falls."""
    remedy = times_lr(300.0)
    monkeypatch.setattr("ravine.diagnose.settling.control_of", lambda *_: remedy)
    case = Case(Suspicion(Finding("lr-too-low", "warning", "high", "made"), (remedy,)))
    settle(evidence_of(TINY), [case], 60)
    assert not case.holds and not case.confirmed
    assert "where a change that treats nothing was made instead" in case.refuted


def test_the_control_of_a_decayed_rate_is_no_rate():
    change = Change("decay", task=lambda task: task, written=(("optimizer.lr", "constant({lr})"),))
    assert {control_of(change, "noise-floor", seed) for seed in range(50)} == {ORDER, SHUFFLED}
