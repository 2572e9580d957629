"""The probes of data against naive computations, the checks on a made fault and its healthy twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faulty_programs import clusters, evidence_of, generator, line, names, net, program
from torch import nn

from ravine.diagnose.checks.data import data_checks
from ravine.diagnose.probes.arrays import Arrays, arrays, table
from ravine.diagnose.probes.labels import disagreement
from ravine.diagnose.probes.leak import correlations, leak, shares
from ravine.diagnose.probes.learnable import learned
from ravine.diagnose.probes.shift import shifted


def test_shares_of_rows_against_two_loops():
    train = torch.randint(0, 4, (60, 3), generator=generator(1)).float()
    valid = torch.randint(0, 4, (40, 3), generator=generator(2)).float()
    inside = sum(any(torch.equal(v, t) for t in train) for v in valid) / len(valid)
    again = sum(
        any(torch.equal(train[i], train[j]) for j in range(60) if j != i) for i in range(60)
    )
    assert shares(train, valid) == pytest.approx((inside, again / 60))
    assert 0 < inside < 1


def test_correlations_against_numpy_and_of_a_constant_column():
    X = np.random.default_rng(0).normal(size=(50, 3))
    X[:, 1] = 7.0
    y = X[:, 0] + 0.1 * X[:, 2]
    found = correlations(X, y)
    assert found[1] == 0
    assert found[[0, 2]] == pytest.approx([np.corrcoef(X[:, k], y)[0, 1] for k in (0, 2)])


def test_a_table_counts_symbols_and_flattens_images():
    symbols = torch.tensor([[0, 1, 1], [2, 2, 2]])
    found = table(symbols, torch.tensor([0, 1]), "classes")
    assert found is not None and found.classes
    assert found.inputs.tolist() == [[0, 1, 1, 1, 2, 0], [2, 2, 2, 0, 0, 3]]
    images = table(torch.ones(2, 1, 2, 2), torch.tensor([[0.5], [1.5]]), "numbers")
    assert images is not None and images.inputs.shape == (2, 4) and not images.classes
    assert table(symbols, symbols, "classes") is None  # a target a position


def test_a_baseline_learns_clusters_and_nothing_of_noise():
    X, y = clusters(300)
    random = y[torch.randperm(300, generator=generator(9))]
    seen, noise = (learned(table(X, t, "classes")) for t in (y, random))
    assert seen is not None and noise is not None
    assert seen.quality > 0.9 and seen.sigmas > 10
    assert noise.sigmas < 3
    again = (seen.predicted.argmax(1) == y.numpy()[seen.rows]).mean()
    assert again == pytest.approx(seen.quality)


def test_a_baseline_of_numbers_and_of_too_few_rows():
    seen = learned(table(*line(300), "numbers"))
    assert seen is not None and seen.quality > 0.9 and seen.chance == 0
    assert learned(table(*line(20), "numbers")) is None


def test_overlap_is_denied_at_the_border_and_changed_labels_everywhere():
    X, y = clusters(600, spread=1.2)
    overlap = learned(table(X, y, "classes"))
    X, y = clusters(600, spread=0.4)
    changed = torch.where(torch.rand(600, generator=generator(5)) < 0.3, (y + 1) % 3, y)
    wrong = learned(table(X, changed, "classes"))
    assert overlap is not None and wrong is not None
    assert disagreement(overlap).wrong > 0.1 and disagreement(overlap).even < 0.5
    assert disagreement(wrong).wrong > 0.2 and disagreement(wrong).even > 0.6


def test_two_samples_alike_and_apart_in_one_of_many_columns():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(300, 40)), random.normal(size=(300, 40))
    targets = random.integers(0, 2, 300)
    alike = shifted(Arrays(one, targets, True), Arrays(other, targets, True))
    assert alike is not None and abs(alike.sigmas) < 3 and alike.labels == 0
    moved = other.copy()
    moved[:, 17] += 3
    apart = shifted(Arrays(one, targets, True), Arrays(moved, np.zeros(300, int), True))
    assert apart is not None and apart.area > 0.8 and apart.column == 17
    assert apart.labels == pytest.approx((targets == 1).mean())


def task_of(train, valid, classes=3, **options):
    return program(
        train, lambda: net(train[0].shape[1], 16, classes), nn.CrossEntropyLoss(), valid=valid,
        **options,
    )  # fmt: skip


def test_a_leak_is_found_and_repeats_of_few_possible_rows_are_not():
    train, valid = clusters(200), clusters(100, seed=5)
    assert names(data_checks(evidence_of(task_of(train, valid)))) == []
    leaking = (torch.cat([valid[0], train[0][:30]]), torch.cat([valid[1], train[1][:30]]))
    found = list(data_checks(evidence_of(task_of(train, leaking))))
    assert names(found) == ["data-leak"] and found[0].certain
    assert found[0].finding.evidence["shared"] == pytest.approx(30 / 130)
    # Nine possible rows: every validation row is a training row, as every training row is.
    grid = (train[0].round().clamp(0, 2)[:, :2], train[1])
    same = (valid[0].round().clamp(0, 2)[:, :2], valid[1])
    assert "data-leak" not in names(data_checks(evidence_of(task_of(grid, same))))


def test_a_column_that_is_the_target():
    X, y = line(200)
    told = torch.cat([X, 3 * y + 0.001 * torch.randn(y.shape, generator=generator())], 1)
    run = program((told, y), lambda: nn.Linear(5, 1), "mse")
    seen = evidence_of(run).probe(leak)
    assert seen.column == 4 and seen.others < 0.9
    assert evidence_of(program((X, y), lambda: nn.Linear(4, 1), "mse")).probe(leak).column is None


def test_labels_without_meaning_are_unlearnable_only_if_nothing_helps():
    X, y = clusters(300)
    y = y[torch.randperm(300, generator=generator(3))]
    found = list(data_checks(evidence_of(task_of((X[:200], y[:200]), (X[200:], y[200:])))))
    assert names(found) == ["unlearnable-data"]
    assert found[0].last_resort


def test_changed_labels_are_found():
    (X, y), valid = clusters(400), clusters(100, seed=5)
    changed = torch.where(torch.rand(400, generator=generator(5)) < 0.3, (y + 1) % 3, y)
    found = list(data_checks(evidence_of(task_of((X, changed), valid))))
    assert names(found)[0] == "labels-corrupted"


def test_validation_data_of_another_kind():
    train, (X, y) = clusters(200), clusters(100, seed=5)
    found = list(data_checks(evidence_of(task_of(train, (-X, y)))))
    assert names(found) == ["train-valid-mismatch"]
    assert found[0].finding.severity == "warning"
    other = list(data_checks(evidence_of(task_of(train, (X, (y + 1) % 3)))))
    assert names(other) == ["train-valid-mismatch"]  # the inputs are alike, the answers are not
    assert other[0].finding.where == "targets"


def test_arrays_are_those_of_the_task():
    X, y = clusters(50)
    seen = evidence_of(task_of((X, y), None)).probe(arrays)
    assert seen is not None and seen.inputs.shape == (50, 3)
