"""A batch in several passes gives the gradient of the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import mlp, numbers, points, task

import ravine
from ravine.errors import ArgumentError
from ravine.training.devices.means import amount_of
from ravine.training.devices.parts import Parts

CLASSES = 5


def tokens(rows: int = 14, length: int = 6) -> tuple[Tensor, Tensor]:
    """Sequences whose tokens are ignored in very unequal numbers, in one row all of them."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, length, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (rows, length), generator=generator)
    for row in range(rows):
        y[row, : (row * 3) % (length + 1)] = -100
    return X, y


def torch_layout(loss: Any) -> Any:
    class Flat(nn.Module):
        def forward(self, output: Tensor, targets: Tensor) -> Tensor:
            return loss(output.flatten(0, -2), targets.flatten())

    return Flat()


def language(loss: Any, **changes: Any) -> ravine.Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    return ravine.Task(name="tokens", model=model, loss=loss, train=tokens(), valid=tokens(9))


def trained(made: ravine.Task, accumulate: int) -> ravine.Record:
    return ravine.train(
        made, "adam(lr=0.1)", accumulate=accumulate, batch_size=7, epochs=3, regularize=()
    )


def assert_same(one: ravine.Record, other: ravine.Record) -> None:
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for row, twin in zip(numbers(one.history), numbers(other.history), strict=True):
        assert row == pytest.approx(twin, rel=1e-10)


LOSSES = {
    "cross_entropy": "cross_entropy()",
    "class weights": "cross_entropy(class_weight=[1.0, 0.1, 2.0, 0.0, 3.0])",
    "smoothing": "cross_entropy(label_smoothing=0.1)",
    "focal": "categorical_focal()",
    "sum": ravine.losses.CrossEntropy(reduction="sum"),
}


@pytest.mark.parametrize("accumulate", [2, 3, 7, 20])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_mean_over_tokens_is_that_of_the_whole_batch(loss: Any, accumulate: int) -> None:
    assert_same(trained(language(loss), accumulate), trained(language(loss), 1))


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.functional.cross_entropy], ids=["module", "function"]
)
def test_torchs_cross_entropy_with_ignored_rows(loss: Any) -> None:
    X, y = points()
    y = torch.where(torch.arange(len(y)) % 7 < 2, -100, y)  # some passes have nothing to learn from
    made = task(train=(X.double(), y), model=mlp().double(), loss=loss, valid=None)
    assert_same(trained(made, 7), trained(made, 1))


def test_the_mean_of_means_would_be_another_number() -> None:
    X, y = tokens()
    net = language("cross_entropy").model
    loss = ravine.losses.CrossEntropy()
    parts = Parts(passes=3).own(X, y, loss)
    means = [loss(net(part.inputs), part.targets) for part in parts]
    exact = sum(mean * part.share for mean, part in zip(means, parts, strict=True))
    whole = loss(net(X), y)
    torch.testing.assert_close(exact, whole, rtol=1e-14, atol=0)
    assert abs(sum(means) / 3 - whole) > 1e-4


def test_any_other_loss_is_a_mean_over_rows() -> None:
    made = task(loss=lambda output, targets: (output.double().sum(-1) - targets).square().mean())
    one, other = trained(made, 3), trained(made, 1)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "target", "amount"),
    [
        (ravine.losses.MSE(), torch.zeros(6, 2), 6),
        (ravine.losses.CrossEntropy(ignore_index=1), torch.tensor([[1, 0], [2, 1]]), 2),
        (ravine.losses.CrossEntropy(dim=1), torch.full((4, 3, 5), 1 / 3), 20),
        (nn.NLLLoss(weight=torch.tensor([0.5, 2.0])), torch.tensor([0, 1, 1, -100]), 4.5),
        (nn.CrossEntropyLoss(), torch.full((4, 3), 1 / 3), 4),
        (ravine.losses.Hinge(), torch.ones(3), 3),
    ],
)
def test_what_a_loss_divides_by(loss: Any, target: Tensor, amount: float) -> None:
    assert amount_of(loss, target) == amount


@pytest.mark.parametrize("rows", [1, 5, 8, 9])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("passes", [1, 3])
def test_parts_are_the_batch(rows: int, world: int, passes: int) -> None:
    X, y = torch.arange(rows)[:, None], torch.zeros(rows)
    found = [Parts(passes, rank, world).own(X, y, nn.MSELoss()) for rank in range(world)]
    assert len({len(own) for own in found}) == 1  # all meet equally often
    real = [part for own in found for part in own if not part.stands_in]
    assert torch.equal(torch.cat([part.inputs for part in real]), X)
    assert sum(part.share for own in found for part in own) == pytest.approx(1)
    assert all(part.share == 0 for own in found for part in own if part.stands_in)


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, True, "2"])
def test_a_bad_number_of_passes_is_refused(accumulate: Any) -> None:
    with pytest.raises(ArgumentError, match="accumulate cannot be used"):
        ravine.train(task(), accumulate=accumulate)


def test_steps_in_backward_cannot_wait_for_the_other_passes() -> None:
    with pytest.raises(ArgumentError, match=r"in_backward(.|\n)*accumulate=2, processes: 1"):
        ravine.train(task(), "adam(in_backward=True)", accumulate=2)


def test_dropout_draws_a_mask_for_each_pass_and_resumes(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"regularize": "dropout(0.3)", "accumulate": 3, "batch_size": 16}
    whole = ravine.train(task(), epochs=4, **settings)
    ravine.train(task(), epochs=2, run_dir=tmp_path, **settings)
    resumed = ravine.train(task(), epochs=4, resume=tmp_path)
    assert resumed.config["accumulate"] == 3
    assert numbers(resumed.history) == numbers(whole.history)
