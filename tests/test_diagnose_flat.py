"""Runs that stand still or are drowned in noise, and which finding is the cause."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch
from layer_programs import evidence, mlp, names, one_thread, rows  # noqa: F401 (a fixture)
from torch import Tensor, nn
from torch.optim import SGD, Adam

from ravine import Task
from ravine.diagnose.checks.flat import flat_checks, stands_still
from ravine.diagnose.evidence import Evidence
from ravine.diagnose.program import Program
from ravine.diagnose.ranking import EXPLAINS, SIGNS, ranked
from ravine.diagnose.trials import error_of
from ravine.watch.finding import CODES, Finding


class Curve(nn.Module):
    """A function of one row of numbers, whatever the input."""

    def __init__(self, start: list[float], function: object) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        value: Tensor = self.function(self.w)  # type: ignore[operator]
        return value.expand(len(inputs), 1)


def surface(start: list[float], function: object) -> Evidence:
    def task(seed: int) -> Task:
        return Task(
            model=Curve(start, function), loss=lambda output, target: (output - target).mean(),
            train=(torch.zeros(8, 1), torch.zeros(8, 1)), batch_size="all", epochs=100,
            optimizer=partial(SGD, lr=0.1),
        )  # fmt: skip

    return Evidence(Program(task), time.perf_counter() + 30)


PLACES = {
    "saddle-point": ([1.0, 0.0], lambda w: w[0] ** 2 - w[1] ** 2 + w[1] ** 4 / 4),
    "stationary-point": ([1.4], lambda w: ((w * w - 1) ** 2 + w / 2).sum()),
    "plateau": ([3.0], lambda w: (1 - (-w * w).exp()).sum()),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_three_ways_to_stand_still(name: str) -> None:
    found = names(flat_checks(surface(*PLACES[name])))
    assert list(found) == [name]
    assert found[name].certain
    assert found[name].remedies


@pytest.mark.parametrize("name", ["saddle-point", "stationary-point"])
def test_a_better_start_has_no_finding_of_that_name(name: str) -> None:
    function = PLACES[name][1]
    better = [1.0, 0.05] if name == "saddle-point" else [0.5]
    found = names(flat_checks(surface(better, function)))
    assert "saddle-point" not in found


def test_a_run_that_learns_does_not_stand_still() -> None:
    seen = evidence(lambda: mlp(2, 32, 2), optimizer=partial(Adam, lr=0.03), epochs=20)
    assert error_of(seen.replayed()) < 0.2
    assert not {"saddle-point", "stationary-point", "plateau"} & set(names(flat_checks(seen)))


def test_a_loss_at_the_constant_answer_is_a_plateau() -> None:
    def dead() -> nn.Module:
        model = mlp(2, 16, 2)
        nn.init.constant_(model[0].bias, -20.0)
        return model

    found = names(flat_checks(evidence(dead, epochs=30, optimizer=partial(SGD, lr=0.5))))
    plateau = found["plateau"]
    assert plateau.certain
    assert "the loss of the best constant answer" in plateau.finding.says


@pytest.mark.parametrize(
    ("losses", "still"),
    [
        ([1.0, 0.9, 0.9, 0.9], True),
        ([1.0, 1.0, 1.0, 0.9], False),
        ([1.0, 1.0], False),  # too few to tell
        ([1.0, 0.5, 1e-9, 1e-9], True),
        ([float("nan")] * 4, False),
    ],
)
def test_standing_still(losses: list[float], still: bool) -> None:
    assert stands_still(losses) is still


def test_batches_of_one_under_noise_are_suspected_and_mended() -> None:
    X, y = rows(count=128)
    flipped = torch.rand(128, generator=torch.Generator().manual_seed(1)) < 0.15
    seen = evidence(
        lambda: mlp(2, 32, 2), batch_size=1, epochs=6, train=(X, y ^ flipped.long()),
        optimizer=partial(SGD, lr=0.02, momentum=0.9),
    )  # fmt: skip
    found = names(flat_checks(seen))
    assert {"batch-too-small", "noise-floor"} <= set(found)
    assert found["noise-floor"].finding.evidence["noise scale"] > 4
    decayed = seen.replayed(found["noise-floor"].remedies[0])
    assert decayed.final < seen.replayed().final
    healthy = evidence(lambda: mlp(2, 32, 2), batch_size=64, epochs=4)
    assert "batch-too-small" not in names(flat_checks(healthy))


def finding(name: str, **more: object) -> Finding:
    return Finding(name, "critical", "high", "it is", **more)  # type: ignore[arg-type]


def test_causes_come_before_their_signs() -> None:
    found = [
        (finding("plateau"), 10.0),
        (finding("dead-units"), 3.0),
        (finding("lr-too-high"), 0.5),
    ]
    order = ranked(found)
    assert [one.name for one in order] == ["lr-too-high", "plateau", "dead-units"]
    assert [one.root for one in order] == [True, False, False]


def test_a_sign_alone_is_a_root_and_a_name_is_root_once() -> None:
    assert [one.root for one in ranked([(finding("plateau"), 1.0)])] == [True]
    twice = [(finding("bad-init", where="a"), 1.0), (finding("bad-init", where="b"), 2.0)]
    assert [(one.where, one.root) for one in ranked(twice)] == [("b", True), ("a", False)]
    assert ranked([]) == []


def test_information_explains_nothing() -> None:
    told = Finding("lr-too-high", "info", "low", "it is")
    order = ranked([(told, 9.0), (finding("dead-units"), 1.0)])
    assert [one.name for one in order] == ["dead-units", "lr-too-high"]
    assert order[0].root


def test_the_table_of_causes_knows_its_names() -> None:
    used = set(EXPLAINS) | SIGNS | {name for signs in EXPLAINS.values() for name in signs}
    assert used <= set(CODES)
    assert all(cause not in signs for cause, signs in EXPLAINS.items())
