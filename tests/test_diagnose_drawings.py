"""What is drawn is what was measured, and a drawing measures nothing of its own."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from faulty_programs import clusters, evidence_of, net, program
from torch import nn

from ravine.diagnose import diagnose
from ravine.diagnose.drawings import drawings
from ravine.diagnose.layer_drawings import COLUMNS, dead_units, gradient_flow
from ravine.diagnose.place_drawings import falls, spectrum
from ravine.diagnose.probes.curvature import extremes
from ravine.diagnose.probes.place import first_place, last_place
from ravine.diagnose.probes.run import run
from ravine.diagnose.probes.units import units
from ravine.report.strict_json import to_strict_json


def deep() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 8, 8, 8, 8)):
        layers += [nn.Linear(before, after), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(8, 3))


DEEP = program(clusters(96), deep, "cross_entropy", optimizer="sgd(lr=0.01)", epochs=4)


def dead_half() -> nn.Sequential:
    model = net(3, 8, 3)
    with torch.no_grad():
        model[0].bias[:6] = -100.0
    return model


HALF = program(clusters(96), dead_half, "cross_entropy", optimizer="sgd(lr=0.01)", epochs=2)


def test_gradients_by_layer_are_those_of_a_plain_backward_pass() -> None:
    evidence = evidence_of(DEEP)
    evidence.probe(run)
    drawn = gradient_flow(evidence)
    assert drawn is not None
    assert drawn["layers"] == [f"{k} (Linear)" for k in (0, 2, 4, 6, 8)]
    fresh = evidence.fresh()
    inputs, targets = next(iter(fresh.train.epoch(1)))
    nn.functional.cross_entropy(fresh.model(inputs), targets).backward()
    wanted = [fresh.model[k].weight.grad.norm().item() for k in (0, 2, 4, 6, 8)]
    # The median over the first steps is near the first step's own: so low a rate changes little.
    assert drawn["series"][0]["values"] == pytest.approx(wanted, rel=0.5)
    assert wanted[0] < 1e-3 * wanted[-1]
    assert [one["name"] for one in drawn["series"]] == ["median of steps 1 to 8", "step 12"]


def test_shares_of_dead_units_are_those_of_a_plain_forward_pass() -> None:
    evidence = evidence_of(HALF)
    evidence.probe(units)
    drawn = dead_units(evidence)
    assert drawn is not None
    (row,) = drawn["rows"]
    model = evidence.fresh().model
    hidden = torch.relu(model[0](evidence.sample[0]))
    dead = float((hidden <= 0).all(0).double().mean())
    flat = float((hidden <= 0).double().mean())
    assert row["layer"] == "1 (relu)" and row["units"] == 8
    assert dead >= 0.75
    assert (row["shares"][0], row["shares"][2]) == pytest.approx((dead, flat))
    assert f"Most: {max(row['shares']):.0%}" in drawn["summary"]
    assert len(drawn["columns"]) == len(COLUMNS) == len(row["shares"])


@pytest.mark.parametrize("size", [7, 40, 90])
def test_a_spectrum_with_its_shares_has_the_matrix_s_moments(size: int) -> None:
    """Gauss quadrature: exact for the moments of the starting vector's measure."""
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(3)).double()
    matrix = matrix + matrix.T
    found = extremes(lambda v: matrix @ v, size).spectrum
    assert sum(share for _, share in found) == pytest.approx(1)
    values = torch.linalg.eigvalsh(matrix)
    if size <= 40:
        assert [value for value, _ in found] == pytest.approx(values.tolist())
        assert {share for _, share in found} == {1 / size}
        return
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start /= start.norm()
    moment = start.clone()
    for power in range(1, 6):
        moment = matrix @ moment
        told = sum(share * value**power for value, share in found)
        assert told == pytest.approx(float(start @ moment), rel=1e-6, abs=1e-6)


def test_the_place_is_drawn_as_it_was_measured() -> None:
    evidence = evidence_of(DEEP)
    assert spectrum(evidence) is None and falls(evidence) is None
    place = evidence.probe(last_place)
    assert place is not None
    drawn = spectrum(evidence)
    assert drawn is not None
    (series,) = drawn["series"]
    assert (min(series["values"]), max(series["values"])) == (place.lowest, place.highest)
    steps = falls(evidence)
    assert steps is not None
    assert [bar["value"] for bar in steps["bars"]] == [place.slope_fall, place.fall]
    assert evidence.known(first_place) is None


def test_a_drawing_measures_nothing_of_its_own() -> None:
    evidence = evidence_of(DEEP)
    assert gradient_flow(evidence) is None and dead_units(evidence) is None
    assert [one["kind"] for one in drawings(evidence, [])] == ["curves"]
    assert evidence.known(run) is None and evidence.known(units) is None


def test_a_model_of_one_layer_has_no_flow() -> None:
    evidence = evidence_of(program(clusters(60), lambda: nn.Linear(3, 3), "cross_entropy"))
    evidence.probe(run)
    evidence.probe(units)
    assert gradient_flow(evidence) is None and dead_units(evidence) is None


def test_a_diagnosis_has_its_drawings_in_strict_json() -> None:
    found = diagnose(DEEP, budget=0, treat=False)
    drawn = json.loads(to_strict_json(found.to_json()))["drawings"]
    kinds = [one["kind"] for one in drawn]
    assert kinds[0] == "curves" and {"flow", "units"} <= set(kinds)
    assert all(one["title"] and one["summary"] for one in drawn)
    assert all(one["caption"] for one in drawn if one["kind"] != "curves")
