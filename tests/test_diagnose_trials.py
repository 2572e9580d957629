"""When a remedy helps, which finding comes first, and what a diagnosis says when it cannot go on."""

from __future__ import annotations

import math
import sys
from functools import partial

import pytest
import torch
from faulty_programs import clusters, evidence_of, line, net, program
from torch import nn

import ravine
from ravine import Task, diagnose
from ravine.diagnose.evidence import AS_IT_IS
from ravine.diagnose.program import Change, Program
from ravine.diagnose.replay import Trace, replay
from ravine.diagnose.settling import Case, settle
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.layers import INSERT_RELU, NORMALISE, widen
from ravine.diagnose.treatments.loss import and_also
from ravine.diagnose.treatments.model import LEAKY, UNFREEZE, WITHOUT_HOOKS
from ravine.diagnose.treatments.steps import times_lr
from ravine.diagnose.trials import DIVERGED, by_chance, error_of, gain, helps, trial
from ravine.errors import TaskError
from ravine.watch.finding import Finding, Trial


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0.5, 0.5, 0.5], [0.2, 0.2, 0.2], True),
        ([0.5, 0.5, 0.5], [0.2, 0.2, 0.6], False),  # not in every seed
        ([0.5, 0.5, 0.5], [0.45, 0.45, 0.4], False),  # too little of what was wrong
        ([0.06, 0.06, 0.06], [0.03, 0.03, 0.03], False),  # too little of the whole
        ([DIVERGED] * 3, [0.98] * 3, False),  # no better than a constant
        ([0.5, math.nan], [0.1, 0.1], False),
        ([], [], False),
    ],
)
def test_what_counts_as_help(before, after, expected):
    assert helps(before, after) is expected


def test_three_of_three_by_chance():
    orders = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert by_chance(3) == sum(all(order) for order in orders) / len(orders)


def test_losses_that_were_infinite_are_helped_by_finite_ones():
    assert helps([math.inf], [3.0], "train/loss")
    assert not helps([math.inf], [math.inf], "train/loss")


def test_the_worse_part_counts():
    run = Trace(train_quality=[1.0] * 3, valid_quality=[0.6, 0.7, 0.8])
    assert error_of(run) == pytest.approx(0.3)
    assert error_of(Trace(non_finite=3)) == DIVERGED
    assert math.isnan(error_of(Trace()))


def test_the_gain_is_the_share_of_what_was_wrong():
    assert gain(Trial("", (0.4, 0.6), (0.1, 0.1), "error", True)) == pytest.approx(0.8)
    assert gain(Trial("", (0.4,), (0.1,), "error", False)) == 0


SLOW = program(clusters(200), lambda: net(3, 8, 3), "cross_entropy",
               optimizer=partial(torch.optim.SGD, lr=1e-4), epochs=5)  # fmt: skip


def suspect(name, *remedies, **options):
    return Case(Suspicion(Finding(name, "warning", "high", "made"), remedies, **options))


def test_a_remedy_that_helps_is_kept_with_a_control_and_others_are_ruled_out():
    right = suspect("lr-too-low", times_lr(300.0))
    wrong = suspect("lr-too-high", times_lr(0.1))
    settle(evidence_of(SLOW), [right, wrong], 60)
    assert right.confirmed and right.holds and len(right.trials[0].before) == 3
    assert len(right.trials[0].control) == 3
    assert not wrong.holds
    assert wrong.refuted.startswith("lr-too-high: lower the learning rate to 1/10 of it: ")


def test_a_last_resort_gives_way_to_what_was_repaired():
    right = suspect("lr-too-low", times_lr(300.0))
    last = suspect("underfitting", certain=True, last_resort=True)
    settle(evidence_of(SLOW), [right, last], 60)
    assert right.holds and not last.holds
    alone = suspect("underfitting", certain=True, last_resort=True)
    settle(evidence_of(SLOW), [alone, suspect("lr-too-high", times_lr(0.1))], 60)
    assert alone.holds


def test_what_was_measured_comes_before_what_was_only_repaired():
    measured = suspect("wrong-loss", certain=True)
    repaired = suspect("lr-too-low", times_lr(300.0))
    repaired.trials.append(Trial("", (1.0,), (0.0,), "error", True))
    assert measured.score >= repaired.score


def test_a_replay_that_did_not_finish_counts_for_nothing():
    tried = trial(evidence_of(SLOW, seconds=-1), times_lr(300.0), [0])
    assert not tried.helped and tried.before == () and "time" in tried.measure


def test_a_remedy_that_does_not_fit_the_program_is_no_error():
    def breaks(model):
        model[-1] = nn.Linear(99, 3)

    tried = trial(evidence_of(SLOW), Change("break it", model=breaks), [0])
    assert not tried.helped and "does not fit" in tried.measure


def test_replays_of_a_seed_have_the_same_batches_and_weights():
    one, other = (evidence_of(SLOW).replayed(AS_IT_IS, 1) for _ in range(2))
    assert one.losses == other.losses
    assert one.losses != evidence_of(SLOW).replayed(AS_IT_IS, 2).losses


def test_two_changes_of_the_same_part_are_both_made():
    def named(name):
        return lambda model: setattr(model, name, True)

    model = nn.Linear(1, 1)
    both = and_also(Change("a", model=named("first")), Change("b", model=named("second")))
    assert both.model is not None and both.says == "a, and b"
    both.model(model)
    assert model.first and model.second


def test_without_treatments_only_what_was_measured_is_said():
    twice = program(clusters(200), lambda: net(3, 8, 3, head=nn.Softmax(-1)), nn.CrossEntropyLoss())
    found = diagnose(twice, treat=False)
    assert [f.name for f in found.findings] == ["double-softmax"]
    assert found.findings[0].treatments == ()


def test_a_task_object_is_put_back_to_its_first_weights():
    task = SLOW(0)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    assert isinstance(task, Task)
    assert diagnose(task, budget=60).findings[0].name in (
        "lr-too-low",
        "too-few-epochs",
    )
    after = task.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_model_of_a_task_keeps_nothing_of_the_remedies():
    task = SLOW(0)
    first = task.model[0]
    first.weight.requires_grad_(False)
    made = Program(task)
    for change in (widen(8), NORMALISE, INSERT_RELU, UNFREEZE, WITHOUT_HOOKS, LEAKY):
        changed = made.fresh(change)
        changed.loss(changed.model(task.train[0][:4]), task.train[1][:4]).backward()
        made.put_back()
        assert task.model[0] is first and first.weight.shape == (8, 3)
        assert not first._forward_hooks and not first.weight.requires_grad
        assert [type(m) for m in task.model] == [nn.Linear, nn.ReLU, nn.Linear]
        assert all(weight.grad is None for weight in task.model.parameters())


def test_a_program_that_cannot_make_a_step_says_where():
    X, y = clusters(50)
    run = program((X, y), lambda: nn.Linear(3, 2), nn.CrossEntropyLoss())
    with pytest.raises(TaskError) as told:
        diagnose(run, budget=5)
    text = str(told.value)
    assert "cannot make a step" in text
    assert "loss of outputs (32, 2) float32 and targets (32,) int64 failed" in text
    wide = program((X, y), lambda: nn.Linear(4, 3), nn.CrossEntropyLoss())
    with pytest.raises(TaskError, match=r"the model on inputs \(32, 3\) float32 failed"):
        diagnose(wide, budget=5)


def test_an_interruption_leaves_what_was_found(monkeypatch):
    twice = program(clusters(200), lambda: net(3, 8, 3, head=nn.Softmax(-1)), nn.CrossEntropyLoss())

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["ravine.diagnose.diagnose"], "settle", stop)
    found = ravine.diagnose(twice)
    assert found.interrupted and found.findings[0].name == "double-softmax"


@pytest.mark.parametrize("noise", [0.05, 1.0], ids=["clear", "noisy"])
def test_a_program_that_reaches_what_its_data_allows_is_healthy(noise):
    run = program(line(400, noise=noise), lambda: nn.Linear(4, 1), "mse", epochs=20)
    found = diagnose(run, budget=90)
    assert (found.findings, found.verdict) == ([], "healthy")


def far_too_high(seed: int) -> ravine.Task:
    wine = ravine.tasks.load_task("wine", seed)
    torch.manual_seed(seed)
    return ravine.Task(
        model=nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3)),
        loss="cross_entropy",
        train=wine.train,
        valid=wine.valid,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=100.0, momentum=0.9),
        epochs=20,
        batch_size=16,
    )


def test_a_rate_that_diverges_is_the_cause_and_the_numbers_its_sign() -> None:
    found = ravine.diagnose(far_too_high)
    assert found.findings[0].code == "LR-HIGH"
    assert [f.root for f in found.findings if f.name == "non-finite"] in ([], [False])


def test_a_program_that_fails_later_says_at_which_step():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(3, 3), 0

        def forward(self, x):
            self.calls += self.training
            if self.calls > 9:
                raise ValueError("a row too many")
            return self.layer(x)

    task = program(clusters(200), Fails, "cross_entropy")
    with pytest.raises(TaskError, match="fails after step 9") as told:
        diagnose(task, budget=60)
    assert "ValueError: a row too many" in str(told.value) and "epoch 2" in str(told.value)
    mine = task(0)  # a Task of a person's own gets its weights back after an error too
    before = {k: v.clone() for k, v in mine.model.state_dict().items()}
    with pytest.raises(TaskError, match="fails after step"):
        diagnose(mine, budget=60)
    assert all(torch.equal(v, before[k]) for k, v in mine.model.state_dict().items())
    assert all(weight.grad is None for weight in mine.model.parameters())


def test_a_program_longer_than_the_budget_says_how_far_it_came():
    long = program(clusters(200), lambda: net(3, 8, 3), "cross_entropy", epochs=10**6)
    found = diagnose(long, budget=1)
    assert found.verdict != "healthy"
    assert any("the time was over after" in told and "of 7000000 steps" in told
               for told in found.ruled_out)  # fmt: skip


def test_a_loss_that_climbs_is_no_repair_though_the_answers_are_right():
    seen = evidence_of(far_too_high)
    told, runs = (
        [make(factor) for factor in (0.01, 0.001)]
        for make in (
            lambda factor: trial(seen, times_lr(factor), [0]),
            lambda factor: seen.replayed(times_lr(factor), 0),
        )
    )
    assert all(one.after[0] < 0.1 < one.before[0] for one in told)
    assert runs[0].final > 100 * runs[0].losses[0] and not told[0].helped
    assert runs[1].final < runs[1].losses[0] and told[1].helped


def test_a_scaled_plateau_still_listens():
    lr = "plateau(0.1, patience=1)"
    run = program(
        clusters(60),
        lambda: net(3, 8, 3),
        lambda o, y: 0 * o.sum() + 1.0,
        optimizer=f"sgd(lr={lr})",
    )
    made = Program(run).fresh(times_lr(10.0))
    assert made.optimizer.param_groups[0]["schedule"](0) == pytest.approx(1.0)
    replay(made)  # a loss that never falls
    assert made.optimizer.param_groups[0]["schedule"](0) < 0.5


def test_a_replay_decays_what_a_run_decays():
    run = program(clusters(60), lambda: net(3, 8, 3), "cross_entropy", optimizer="adamw(lr=1e-2)")
    groups = Program(run).fresh().optimizer.param_groups
    assert {p.ndim for g in groups if g["weight_decay"] for p in g["params"]} == {2}
    assert {p.ndim for g in groups if not g["weight_decay"] for p in g["params"]} == {1}
