"""Remedies that put something else in the place of a part: what they change, and what they leave."""

from __future__ import annotations

import pytest
import torch
from faulty_programs import clusters, evidence_of, generator, line, names, net, program
from torch import nn
from torch.nn import functional as F

from ravine import diagnose
from ravine.diagnose.checks.head import head_checks
from ravine.diagnose.checks.loss import loss_checks
from ravine.diagnose.checks.stepping import stepping_checks
from ravine.diagnose.probes.stepping import stepping
from ravine.diagnose.program import Change, Program
from ravine.diagnose.replay import Trace
from ravine.diagnose.treatments.data import SPLIT_ANEW, STANDARDISE_APART
from ravine.diagnose.treatments.layers import HIDDEN
from ravine.diagnose.treatments.loss import and_also
from ravine.diagnose.treatments.model import LINEAR_HEAD, REGISTER, last_leaf
from ravine.diagnose.trials import helps

CLASSES = clusters(120)


class Listed(nn.Module):
    """Layers in a plain list, which nn.Module does not see."""

    def __init__(self, kind: type = list) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        layers = [nn.Linear(8, 8), nn.Linear(8, 8)]
        self.hidden = dict(zip("ab", layers, strict=True)) if kind is dict else kind(layers)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        for layer in self.hidden.values() if hasattr(self.hidden, "values") else self.hidden:
            x = layer(x).relu()
        return self.last(x)


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_layers_that_a_module_does_not_see_are_found_and_registered(kind):
    run = program(CLASSES, lambda: Listed(kind), "cross_entropy")
    seen = evidence_of(run).probe(stepping)
    assert seen.outside.count("of shape (8, 8)") == 2 and len(seen.outside) == 4
    assert seen.missing == ()
    (found,) = stepping_checks(evidence_of(run))
    assert found.finding.name == "optimizer-misses-parameters" and found.certain
    made = Program(run).fresh(REGISTER)
    assert len(list(made.model.parameters())) == 8
    held = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in made.model.parameters()} == held
    assert made.model(CLASSES[0]).shape == (120, 3)


def test_a_model_that_registers_its_layers_has_none_outside():
    run = program(CLASSES, lambda: net(3, 8, 3), "cross_entropy")
    assert evidence_of(run).probe(stepping).outside == ()


def soft_in_the_loss(output, target):
    return F.cross_entropy(output.softmax(-1), target)


def test_a_softmax_in_the_loss_is_the_same_fault():
    run = program(CLASSES, lambda: net(3, 8, 3), soft_in_the_loss)
    (found,) = head_checks(evidence_of(run))
    assert (found.finding.name, found.finding.where) == ("double-softmax", "loss")
    first = diagnose(run, budget=60).findings[0]
    assert first.name == "double-softmax"
    plain = program(CLASSES, lambda: net(3, 8, 3), F.cross_entropy)
    assert names(head_checks(evidence_of(plain))) == []


def test_the_last_module_is_the_last_in_the_order_of_definition():
    inner = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    model = nn.Sequential(inner, nn.Softmax(-1))
    found = last_leaf(model)
    assert found is not None and isinstance(found[2], nn.Softmax)
    assert LINEAR_HEAD.model is not None
    LINEAR_HEAD.model(model)
    assert isinstance(model[1], nn.Identity) and isinstance(inner[1][1], nn.Tanh)


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2))])
def test_a_hidden_layer_also_where_the_model_is_one_layer(model):
    run = program(clusters(60, classes=2), lambda: nn.Linear(2, 2), "cross_entropy")
    assert HIDDEN.model is not None
    changed = HIDDEN.model(model)
    assert changed is not None and changed(torch.ones(4, 3)).shape == (4, 2)
    assert sum(isinstance(m, nn.Linear) for m in changed.modules()) == 2
    made = Program(run).fresh(HIDDEN)
    held = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in made.model.parameters()} == held and made.task.model is made.model


def test_of_two_changes_the_second_gets_what_the_first_returned():
    other = nn.Linear(1, 1)
    seen = []
    both = and_also(Change("a", model=lambda m: other), Change("b", model=seen.append))
    assert both.model is not None and both.model(nn.Linear(2, 2)) is other
    assert seen == [other]


def test_parts_of_the_same_scale_and_parts_drawn_anew():
    X, y = line(90)
    run = program((X[:60], y[:60]), lambda: net(4, 8, 1), "mse", valid=(100 * X[60:] + 7, y[60:]))
    apart = Program(run).fresh(STANDARDISE_APART).task
    for part in (apart.train, apart.valid):
        assert torch.allclose(part[0].mean(0), torch.zeros(4), atol=1e-5)
        assert torch.allclose(part[0].std(0, correction=0), torch.ones(4), atol=1e-4)
    anew = Program(run).fresh(SPLIT_ANEW).task
    assert len(anew.train[0]) == 60 and len(anew.valid[0]) == 30
    rows = {tuple(row) for part in (anew.train, anew.valid) for row in part[0].tolist()}
    assert rows == {tuple(row) for row in torch.cat([X[:60], 100 * X[60:] + 7]).tolist()}
    values = torch.cat([anew.train[1], anew.valid[1]])
    assert torch.equal(values.sort(0)[0], y.sort(0)[0])
    fresh = Program(run).fresh().task  # the program's own data is as it was
    assert torch.equal(fresh.train[0], X[:60])


def test_sorted_rows_are_mended_by_a_split_at_random():
    X, y = clusters(300, classes=6)
    order = y.argsort(stable=True)
    X, y = X[order], y[order]
    run = program(
        (X[:200], y[:200]), lambda: net(6, 16, 6), "cross_entropy", valid=(X[200:], y[200:])
    )
    first = diagnose(run, budget=60).findings[0]
    assert first.name == "train-valid-mismatch"
    assert any(t.helped and "anew" in t.remedy for t in first.treatments)


def test_a_run_is_cut_where_early_stopping_keeps_it():
    trace = Trace(
        train_loss=[5.0, 4, 3, 2, 1], valid_loss=[5.0, 3, 2, 4, 6], epochs_seen=[1, 2, 3, 4, 5]
    )
    cut = trace.until_best()
    assert cut.valid_loss == [5.0, 3, 2] and cut.train_loss == [5.0, 4, 3]
    assert trace.valid_loss[-1] == 6  # another trace
    alone = Trace(train_loss=[2.0, 1.0])
    assert alone.until_best() is alone


def test_far_targets_are_paired_with_their_outputs():
    X, _ = line(128)
    far = 2.5e5 + 6e4 * torch.randn(128, 1, generator=generator(3))
    plain = program((X, far), lambda: net(4, 8, 1), "mse")
    assert names(loss_checks(evidence_of(plain))) == []
    paired = program(
        (X, far), lambda: net(4, 8, 1), lambda o, y: (o - y.squeeze(1)).square().mean()
    )
    assert names(loss_checks(evidence_of(paired))) == ["wrong-loss"]


def test_a_share_is_one_of_what_noise_leaves():
    before, after = [0.38, 0.37], [0.31, 0.3]
    assert not helps(before, after) and helps(before, after, floor=0.28)
    assert not helps([0.38, 0.37], [0.35, 0.34], floor=0.28)  # too little of the whole
    # Where a constant is right in 94 of 100, no repair can gain 5 of 100 on it.
    assert helps([0.5, 0.6], [0.02, 0.025], most=0.06)
    assert not helps([0.5, 0.6], [0.05, 0.055], most=0.06)


def test_what_is_as_good_as_a_baseline_has_to_be_halved():
    assert not helps([0.13, 0.16], [0.08, 0.11], floor=0.2)
    assert helps([0.13, 0.16], [0.06, 0.07], floor=0.2)
    assert helps([0.13, 0.16], [0.08, 0.11])  # without one a quarter is enough
