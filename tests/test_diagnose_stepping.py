"""What one step shows: by hand, and the findings on made faults and their healthy twins."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from faulty_programs import clusters, evidence_of, line, names, net, program
from torch import nn
from torch.optim import SGD, Adam

from ravine.diagnose.checks.stepping import stepping_checks
from ravine.diagnose.probes.stepping import stepping

SGD1 = partial(SGD, lr=0.1)


def task_of(optimizer=SGD1, model=lambda: net(3, 8, 3), loss="cross_entropy"):
    return program(clusters(100), model, loss, optimizer=optimizer)


class Keeps(SGD):
    def zero_grad(self, set_to_none=True):
        pass


class Idle(SGD):
    def step(self, closure=None):
        pass


def frozen():
    model = net(3, 8, 3)
    model[0].requires_grad_(False)
    return model


def hooked():
    model = net(3, 8, 3)
    for weight in model.parameters():
        weight.register_hook(torch.neg)
    return model


def of_the_last(params):
    return Adam(list(params)[-2:], lr=0.01)


def of_a_copy(params):
    return Adam([p.detach().clone().requires_grad_() for p in params], lr=0.01)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (task_of(), []),
        (task_of("adam(lr=0.01)"), []),
        (task_of(Adam), []),
        (task_of(partial(Keeps, lr=0.1)), ["missing-zero-grad"]),
        (task_of(partial(Idle, lr=0.1)), ["step-has-no-effect"]),
        (task_of(partial(Adam, lr=0.0)), ["step-has-no-effect"]),
        (task_of(of_a_copy), ["step-has-no-effect"]),
        (task_of(of_the_last), ["optimizer-misses-parameters"]),
        (task_of(model=frozen), ["frozen-parameters"]),
        (task_of(partial(SGD, lr=0.1, maximize=True)), ["gradient-sign-flipped"]),
        (task_of(model=hooked), ["gradient-sign-flipped"]),
    ],
    ids=[
        "healthy", "expression", "adam", "keeps", "idle", "lr-0", "a-copy", "misses", "frozen",
        "maximize", "hook",
    ],
)  # fmt: skip
def test_the_findings_of_a_step(run, expected):
    assert names(stepping_checks(evidence_of(run))) == expected


def test_a_step_by_hand():
    X, y = line(32)
    seen = evidence_of(
        program((X, y), lambda: nn.Linear(4, 1), "mse", optimizer=SGD1)
    ).probe(stepping)  # fmt: skip
    fresh = evidence_of(program((X, y), lambda: nn.Linear(4, 1), "mse", optimizer=SGD1)).fresh()
    batch = next(iter(fresh.train.epoch(1)))
    (fresh.model(batch[0]) - batch[1]).square().mean().backward()
    weights = list(fresh.model.parameters())
    gradient = torch.cat([w.grad.flatten() for w in weights]).norm()
    norm = torch.cat([w.detach().flatten() for w in weights]).norm()
    assert seen.update_ratio == pytest.approx(float(0.1 * gradient / norm), rel=1e-4)
    assert seen.ratio == pytest.approx(1, rel=1e-3)
    assert seen.descends is True and seen.lr == 0.1


def test_weights_without_a_gradient_are_no_fault_of_the_step():
    dead = program(clusters(50), lambda: net(3, 4, 3), lambda o, t: (o * 0).sum(), optimizer=SGD1)
    assert "step-has-no-effect" not in names(stepping_checks(evidence_of(dead)))
