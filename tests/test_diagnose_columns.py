"""Columns that tell nothing and classes that are rare, against loops; and nothing where all is well."""

from __future__ import annotations

import torch
from faulty_programs import clusters, evidence_of, generator, line, names, net, program

from ravine import diagnose
from ravine.diagnose.checks.columns import column_checks
from ravine.diagnose.probes.columns import columns


def test_columns_against_two_loops():
    X = torch.randint(0, 3, (40, 12), generator=generator(4)).float()
    X[:, 2], X[:, 5], X[:, 7], X[:, 9] = 1.0, X[:, 0], X[:, 0], X[:, 4]
    y = torch.tensor([0] * 39 + [1])
    seen = evidence_of(program((X, y), lambda: net(12, 4, 2), "cross_entropy")).probe(columns)
    constant = [k for k in range(12) if all(row[k] == X[0, k] for row in X)]
    repeated = [
        (min(j for j in range(12) if torch.equal(X[:, j], X[:, k])), k)
        for k in range(12)
        if any(torch.equal(X[:, j], X[:, k]) for j in range(k)) and k not in constant
    ]
    assert list(seen.constant) == constant == [2]
    assert list(seen.repeated) == repeated == [(0, 5), (0, 7), (4, 9)]
    assert seen.classes == (39, 1) and seen.columns == 12


def test_columns_and_rare_classes_are_told_and_not_held_against_anyone():
    X, y = clusters(300, classes=2)
    X = torch.cat([X, X[:, :1], torch.ones(300, 1)], 1)
    y = torch.where(torch.arange(300) % 2 == 0, y, 0)
    rare = torch.zeros(300, dtype=torch.long)
    rare[:4] = 1
    found = diagnose(program((X, y), lambda: net(4, 8, 2), "cross_entropy"), budget=60, treat=False)
    told = {f.name: f for f in found.findings}
    assert told["uninformative-features"].severity == "info"
    assert "1 never vary (3), and 1 repeat another (2 is 0)" in told["uninformative-features"].says
    seen = evidence_of(program((X, rare), lambda: net(4, 8, 2), "cross_entropy"))
    assert "label-imbalance" in names(column_checks(seen))
    X, y = line(100)
    assert names(column_checks(evidence_of(program((X, y), lambda: net(4, 8, 1), "mse")))) == []
