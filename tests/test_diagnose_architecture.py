"""First weights, missing nonlinearities and width: probes, checks and their remedies."""

from __future__ import annotations

import pytest
import torch
from layer_programs import evidence, mlp, names, one_thread  # noqa: F401 (a fixture)
from torch import Tensor, nn

from ravine.diagnose.checks.architecture import architecture_checks
from ravine.diagnose.probes.affine import affine
from ravine.diagnose.probes.one_batch import one_batch
from ravine.diagnose.probes.symmetry import same_rows, symmetry
from ravine.diagnose.treatments.layers import INSERT_RELU, NORMALISE, SHORTCUTS, widen
from ravine.diagnose.trials import error_of


def images(*between: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 4, 1), *between, nn.BatchNorm1d(4), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip


AFFINE = {
    "linear stack": (lambda: mlp(2, 8, 8, 2, activation=nn.Identity), 3, True),
    "convolution and batch norm": (images, 2, True),
    "under a softmax": (
        lambda: nn.Sequential(mlp(2, 8, 2, activation=nn.Identity), nn.Softmax(-1)),
        2,
        True,
    ),
    "one layer": (lambda: nn.Linear(2, 2), 1, True),
    "relu": (lambda: mlp(2, 8, 2), 2, False),
    "convolution and tanh": (lambda: images(nn.Tanh()), 2, False),
    "layer norm": (lambda: mlp(2, 8, 2, activation=lambda: nn.LayerNorm(8)), 2, False),
}


@pytest.mark.parametrize("name", AFFINE)
def test_what_is_affine(name: str) -> None:
    make, layers, expected = AFFINE[name]
    found = evidence(make).probe(affine)
    assert (found.layers, found.affine) == (layers, expected)


def test_symbols_cannot_be_mixed() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    found = evidence(
        lambda: model, train=(torch.randint(0, 5, (32, 3)), torch.arange(32) % 2)
    ).probe(affine)
    assert found.error != found.error
    assert not found.affine


def test_linear_on_purpose_is_not_suspected() -> None:
    assert "missing-nonlinearity" not in names(
        architecture_checks(evidence(lambda: nn.Linear(2, 2)))
    )


def test_the_missing_nonlinearity_is_mended_by_its_remedy() -> None:
    seen = evidence(lambda: mlp(2, 16, 16, 2, activation=nn.Identity), epochs=20)
    found = names(architecture_checks(seen))["missing-nonlinearity"]
    assert found.remedies[0] is INSERT_RELU
    before, after = error_of(seen.replayed()), error_of(seen.replayed(INSERT_RELU))
    assert after < 0.3 * before


def constant(model: nn.Module, value: float) -> nn.Module:
    for weight in model.parameters():
        nn.init.constant_(weight, value)
    return model


def test_copies_stay_copies_and_are_mended() -> None:
    seen = evidence(lambda: constant(mlp(2, 16, 16, 2, activation=nn.Tanh), 0.1), epochs=40)
    found = seen.probe(symmetry)
    assert found.first == found.last == ("0.weight", "2.weight")
    one = names(architecture_checks(seen))["symmetric-init"]
    assert error_of(seen.replayed(one.remedies[0])) < 0.5 * error_of(seen.replayed())


def test_zeros_in_the_last_layer_are_no_symmetry() -> None:
    """Its units differ by their targets: a zero head is a usual way to begin."""
    model = mlp(2, 8, 2)
    constant(model[2], 0.0)
    assert same_rows(model) == ()
    assert same_rows(mlp(2, 1, 2)) == ()  # one unit is not a copy of another


def test_a_loss_far_above_the_constant_answer_is_bad_init() -> None:
    def huge() -> nn.Module:
        torch.manual_seed(0)
        model = mlp(2, 64, 64, 2)
        for weight in model.parameters():
            nn.init.normal_(weight, std=3.0)
        return model

    found = names(architecture_checks(evidence(huge)))
    assert found["bad-init"].finding.evidence["first"] > 30
    assert "bad-init" not in names(architecture_checks(evidence(lambda: mlp(2, 16, 16, 2))))


@pytest.mark.parametrize("change", [widen(8), NORMALISE, SHORTCUTS, INSERT_RELU])
@pytest.mark.parametrize("make", [lambda: mlp(2, 8, 8, 2), lambda: images(nn.ReLU())])
def test_a_remedy_of_layers_trains(change: object, make: object) -> None:
    seen = evidence(make, epochs=1)  # type: ignore[arg-type]
    trace = seen.replayed(change)  # type: ignore[arg-type]
    assert trace.complete
    assert trace.non_finite is None
    if change in (widen(8), NORMALISE):  # the others find nothing to change in some models
        assert trace.losses != seen.replayed().losses


def test_widening_multiplies_hidden_sizes_only() -> None:
    changed = evidence(lambda: mlp(2, 3, 4, 2)).fresh(widen(8)).model
    shapes = [tuple(p.shape) for p in changed.parameters() if p.ndim > 1]
    assert shapes == [(24, 2), (32, 24), (2, 32)]


class Fixed(nn.Module):
    """Holds a width that its layers do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 6), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x).view(len(x), 2, 3).sum(1).relu())
        return out


def test_a_model_that_cannot_be_widened_is_not_called_small() -> None:
    assert "model-too-small" not in names(architecture_checks(evidence(Fixed)))


def test_one_batch_is_learned_by_heart_or_not() -> None:
    able = evidence(lambda: mlp(2, 64, 2)).probe(one_batch)
    unable = evidence(lambda: constant(mlp(2, 8, 2), 0.0)).probe(one_batch)
    assert able.after == 1
    assert unable.after < 1


def test_a_narrow_place_on_purpose_is_not_called_small() -> None:
    """An autoencoder: more weights always reproduce more."""
    X = torch.randn(256, 3) @ torch.randn(3, 8)
    seen = evidence(
        lambda: mlp(8, 2, 8), train=(X, X), loss="mse", epochs=60,
        optimizer=lambda weights: torch.optim.Adam(weights, lr=0.03),
    )  # fmt: skip
    assert error_of(seen.replayed()) < 0.5
    assert "model-too-small" not in names(architecture_checks(seen))


def test_fewer_units_than_the_data_asks_for_are_called_small() -> None:
    seen = evidence(
        lambda: mlp(2, 1, 2), epochs=20, optimizer=lambda w: torch.optim.Adam(w, lr=0.03)
    )
    found = names(architecture_checks(seen))["model-too-small"]
    assert error_of(seen.replayed(found.remedies[0])) < 0.5 * error_of(seen.replayed())
