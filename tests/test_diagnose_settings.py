"""A remedy as a configuration: what is written makes the program that was replayed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from faulty_programs import clusters, evidence_of, net, program
from torch import nn

from ravine.diagnose.evidence import AS_IT_IS
from ravine.diagnose.program import Change, joined
from ravine.diagnose.settings import as_settings, configured, optimizer_text
from ravine.diagnose.treatments.data import STANDARDISE_INPUTS
from ravine.diagnose.treatments.fit import FREE, MORE_DROPOUT, NO_DROPOUT, NO_PENALTY, STOP_EARLY
from ravine.diagnose.treatments.loss import BINARY, CROSS_ENTROPY, NEGATE, SQUARES
from ravine.diagnose.treatments.model import LINEAR_HEAD
from ravine.diagnose.treatments.steps import (
    adam,
    batches_of,
    clipped,
    decayed,
    rebuilt,
    times_epochs,
    times_lr,
)
from ravine.training.catalog import choose_optimizer

T = torch.optim
SGD = partial(T.SGD, lr=0.3, momentum=0.9, weight_decay=0.25)


def unbiased():
    """No biases: a run of ours decays none, torch's optimizer all that it holds."""
    return nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))


PROGRAM = program(clusters(96), unbiased, "cross_entropy", optimizer=SGD, epochs=6)


def after_steps(make, seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    optimizer = make(list(model.parameters()))
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (partial(T.SGD, lr=0.1), "sgd(lr=0.1)"),
        (partial(T.SGD, lr=0.1 * 0.1, momentum=0.9, nesterov=True),
         "sgd(lr=0.01, momentum=0.9, nesterov=True)"),
        (partial(T.Adam, lr=1e-3, betas=(0.8, 0.9)), "adam(lr=0.001, betas=(0.8, 0.9))"),
        (partial(T.Adam, lr=torch.tensor(1e-3), amsgrad=True), "adam(lr=0.001, amsgrad=True)"),
        (partial(T.AdamW, lr=1e-2, weight_decay=0.2), "adamw(lr=0.01, weight_decay=0.2)"),
        (partial(T.RMSprop, lr=1e-2, alpha=0.9, centered=True),
         "rmsprop(lr=0.01, alpha=0.9, centered=True)"),
        (partial(T.Adagrad, lr=0.05), "adagrad(lr=0.05)"),
    ],
    ids=["sgd", "nesterov", "adam", "amsgrad", "adamw", "rmsprop", "adagrad"],
)  # fmt: skip
def test_an_optimizer_of_torch_and_its_expression_make_the_same_steps(make, text):
    model = nn.Linear(4, 3)
    assert optimizer_text(make(model.parameters()), model) == text
    ours, _ = choose_optimizer(text, {})
    assert torch.allclose(after_steps(make), after_steps(ours), rtol=1e-4, atol=1e-7)


class OwnSGD(torch.optim.SGD):
    """Of a person's own: nobody knows what it does."""


def hooked(weights):
    made = T.SGD(weights, lr=0.1)
    made.register_step_pre_hook(lambda *_: None)
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda w: OwnSGD(w, lr=0.1),
        lambda w: T.SGD(w[:1], lr=0.1),
        lambda w: T.SGD([{"params": w[:1], "lr": 0.1}, {"params": w[1:], "lr": 0.2}], lr=0.1),
        T.LBFGS,
        lambda w: T.Adam(w, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
        hooked,
    ],
    ids=["own", "weights-left-out", "groups", "lbfgs", "decoupled", "hook"],
)
def test_what_no_expression_makes(make):
    model = nn.Linear(2, 2)
    assert optimizer_text(make(list(model.parameters())), model) is None


@pytest.mark.parametrize(
    ("change", "settings", "left"),
    [
        (times_lr(0.1), {"optimizer": "sgd(lr=0.03, momentum=0.9, weight_decay=0.25)"}, False),
        (adam(0.01), {"optimizer": "adam(lr=0.01)"}, False),
        (NO_PENALTY, {"optimizer": "sgd(lr=0.3, momentum=0.9)"}, False),
        (times_epochs(4.0), {"epochs": 24}, False),
        (STOP_EARLY, {"regularize": ["early_stopping(patience=6)"]}, False),
        (
            joined(NO_DROPOUT, STOP_EARLY),
            {"regularize": ["dropout(0)", "early_stopping(patience=6)"]},
            False,
        ),
        (batches_of(8), {"batch_size": 8}, False),
        (CROSS_ENTROPY, {"loss": "cross_entropy"}, False),
        (BINARY, {"loss": "binary_cross_entropy"}, False),
        (SQUARES, {"loss": "mse"}, False),
        (MORE_DROPOUT, {"regularize": ["dropout(0.3)"]}, False),
        (NO_DROPOUT, {"regularize": ["dropout(0)"]}, False),
        (FREE, {"regularize": ["dropout(0)"], "optimizer": "sgd(lr=0.3, momentum=0.9)"}, False),
        (NEGATE, {}, True),
        (LINEAR_HEAD, {}, True),
        (joined(LINEAR_HEAD, STANDARDISE_INPUTS), {}, True),
        (joined(CROSS_ENTROPY, STANDARDISE_INPUTS), {"loss": "cross_entropy"}, True),
        (joined(LINEAR_HEAD, times_epochs(2.0)), {"epochs": 12}, True),
    ],
    ids=lambda value: value.says.replace(" ", "-") if isinstance(value, Change) else None,
)
def test_what_of_a_remedy_a_configuration_can_say(change, settings, left):
    said, rest = as_settings(evidence_of(PROGRAM), change)
    assert said == settings
    assert (rest is not None) is left


def test_a_clipped_optimizer_is_written_and_makes_the_same_run():
    evidence = evidence_of(PROGRAM)
    change = clipped(evidence.fresh().optimizer, 0.5)
    said, rest = as_settings(evidence, change)
    text = "sgd(lr=0.3, momentum=0.9, weight_decay=0.25, clip_norm=0.5)"
    assert (said, rest) == ({"optimizer": text}, None)
    wanted = evidence.replayed(change)
    written = evidence.replayed(Change(task=lambda task: configured(task, said)))
    assert written.losses == pytest.approx(wanted.losses, rel=1e-4)
    assert wanted.losses != evidence.replayed(AS_IT_IS).losses


def test_a_falling_rate_is_a_schedule_with_the_same_rates():
    evidence = evidence_of(PROGRAM)
    steps = evidence.fresh().steps
    change = decayed(steps)
    said, rest = as_settings(evidence, change)
    assert rest is None
    wanted = evidence.replayed(change)
    written = evidence.replayed(Change(task=lambda task: configured(task, said)))
    assert written.losses == pytest.approx(wanted.losses, rel=1e-3)
    schedule = evidence.fresh(Change(task=lambda task: configured(task, said))).optimizer
    rate = schedule.param_groups[0]["schedule"]
    assert rate(0) == 0.3 and rate(steps) == pytest.approx(0.003, rel=1e-4)


def test_an_optimizer_that_holds_all_weights_is_written_for_one_that_did_not():
    def half(weights):
        return T.SGD(weights[2:], lr=0.3)

    evidence = evidence_of(
        program(clusters(96), lambda: net(3, 8, 3), "cross_entropy", optimizer=half)
    )
    assert as_settings(evidence, times_lr(0.1)) == ({}, times_lr(0.1))
    same = Change("hold all", optimizer=rebuilt(evidence.fresh().optimizer))
    assert as_settings(evidence, same) == ({"optimizer": "sgd(lr=0.3)"}, None)


def test_regularisers_of_the_task_stay():
    run = program(
        clusters(96), lambda: net(3, 8, 3), "cross_entropy", regularize=("dropout(0.9)", "l2(0.1)"),
        optimizer="sgd(lr=0.1)",
    )  # fmt: skip
    said, _ = as_settings(evidence_of(run), NO_DROPOUT)
    assert said["regularize"] == ["l2(0.1)", "dropout(0)"]
