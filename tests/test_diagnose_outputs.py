"""A model that is blind to its input, and modes that differ: a made fault and its healthy twin."""

from __future__ import annotations

import pytest
import torch
from faulty_programs import clusters, evidence_of, names, net, program
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ravine import diagnose
from ravine.diagnose.checks.outputs import output_checks
from ravine.diagnose.probes.dependence import dependence
from ravine.diagnose.probes.modes import modes
from ravine.diagnose.probes.run import at_end
from ravine.diagnose.treatments.norms import GROUPS

CLASSES = clusters(200)


class Blind(nn.Module):
    """Loses its input on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = net(3, 8, 3)

    def forward(self, x):
        return self.layers(torch.ones_like(x))


def test_a_model_that_loses_its_input():
    found = diagnose(program(CLASSES, Blind, "cross_entropy"), budget=60)
    assert found.findings[0].name == "input-ignored"
    assert "64 different rows get the same output" in found.findings[0].says


def test_what_depends_on_its_input_a_little_is_not_blind():
    class Weak(Blind):
        def forward(self, x):
            return self.layers(1 + 1e-3 * x)

    seen = evidence_of(program(CLASSES, Weak, "cross_entropy")).probe(dependence)
    assert seen.rows == 64 and seen.first > 1e-5
    assert names(output_checks(evidence_of(program(CLASSES, Weak, "cross_entropy")))) == []


def normed(momentum):
    return lambda: nn.Sequential(
        nn.Linear(3, 16), nn.BatchNorm1d(16, momentum=momentum), nn.ReLU(), nn.Linear(16, 3)
    )


# Each batch holds rows of its own scale, so that the last one's statistics fit no other.
def waves(rows=240):
    X, y = clusters(rows)
    scale = 10.0 ** torch.linspace(-2, 2, 10).repeat_interleave(rows // 10)[:, None]
    return X * scale, y


def in_order(data, model, **options):
    loader = DataLoader(TensorDataset(*data), batch_size=24)
    return program(loader, model, "cross_entropy", batch_size=None, **options)


def test_running_statistics_of_the_last_batch_alone():
    run = in_order(waves(), normed(0.9), epochs=20)
    seen = evidence_of(run).probe(modes)
    assert seen.norms == ("1",) and seen.lost > 0.2
    (found,) = output_checks(evidence_of(run))
    assert (found.finding.name, found.finding.where) == ("train-eval-gap", "1")
    plain = program(CLASSES, normed(0.1), "cross_entropy")
    assert abs(evidence_of(plain).probe(modes).lost) < 0.05
    assert names(output_checks(evidence_of(plain))) == []


def test_modes_against_two_loops():
    run = in_order(waves(), normed(0.5), epochs=5)
    evidence = evidence_of(run)
    seen = evidence.probe(modes)
    model = at_end(evidence).model
    right = {True: 0, False: 0}
    for X, y in zip(*(part.split(24) for part in waves()), strict=True):
        hidden = model[0](X)
        for training in right:
            norm = model[1]
            mean = hidden.mean(0) if training else norm.running_mean
            var = hidden.var(0, correction=0) if training else norm.running_var
            out = (hidden - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias
            right[training] += int((model[3](out.relu()).argmax(1) == y).sum())
    assert (seen.train, seen.evaluation) == pytest.approx((right[True] / 240, right[False] / 240))


def test_normalising_each_row_keeps_the_shapes():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    assert GROUPS.model is not None
    GROUPS.model(model)
    assert isinstance(model[1], nn.GroupNorm) and model(torch.ones(1, 1, 4, 4)).shape == (1, 2)
