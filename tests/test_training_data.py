"""The data of a run: every form of it, every size of batch, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training_cases import FORMS, Stream, numbers, points, same, task, weights

import ravine
from ravine.errors import ArgumentError, ArgumentTypeError, TaskError


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_trains_and_validates(form: str) -> None:
    make = FORMS[form]
    loader = form.startswith("loader")
    valid = DataLoader(TensorDataset(*points()), batch_size=7) if loader else make(points())
    record = ravine.train(
        task(train=make(points()), valid=valid),
        "adam(lr=0.03)",
        batch_size=None if loader else 16,
        epochs=15,
    )
    assert record.metrics["valid/accuracy"] > 0.8
    assert record.facts["steps"] == 15 * 3  # 16, 16 and the smaller batch of 8
    assert record.history[0]["train/loss"] > record.history[-1]["train/loss"]


def test_all_forms_of_a_batch_of_all_rows_agree() -> None:
    X, y = points()
    records = [
        ravine.train(task(train=data), "sgd(lr=0.1)", batch_size=size, epochs=3)
        for data, size in [
            ((X, y), "all"),
            (FORMS["dataset"]((X, y)), "all"),
            (FORMS["stream"]((X, y)), 100),
            (DataLoader(TensorDataset(X, y), batch_size=64), None),
        ]
    ]
    for record in records[1:]:
        assert same(weights(record.model), weights(records[0].model))
        assert numbers(record.history) == numbers(records[0].history)


@pytest.mark.parametrize("form", ["tensors", "dataset"])
def test_validation_counts_every_row_once_whatever_the_batches(form: str) -> None:
    X, y = points(3001, seed=3)
    made = task(valid=FORMS[form]((X, y)))
    record = ravine.train(made, epochs=0)
    row = ravine.train(made, "sgd(lr=0)", epochs=1).metrics
    with torch.no_grad():
        output = record.model(X)
    assert row["valid/loss"] == pytest.approx(
        nn.functional.cross_entropy(output, y).item(), rel=1e-6
    )
    assert row["valid/accuracy"] == pytest.approx((output.argmax(1) == y).double().mean().item())


def test_data_without_length_cannot_be_one_batch() -> None:
    with pytest.raises(ArgumentError, match="needs data of known length"):
        ravine.train(task(train=Stream(points())), batch_size="all", epochs=1)


def test_a_loader_and_a_batch_size_contradict() -> None:
    made = task(train=FORMS["loader"](points()))
    with pytest.raises(ArgumentError, match="the batch size is given twice"):
        ravine.train(made, batch_size=16, epochs=1)
    assert ravine.train(made, epochs=0).config["batch_size"] == 16


def test_data_that_gives_no_batch_is_refused() -> None:
    class Once(Stream):
        def __init__(self, data: tuple[Tensor, Tensor]) -> None:
            self.rows = zip(*data, strict=True)

        def __iter__(self) -> Any:
            return self.rows

    with pytest.raises(TaskError, match=r"training data gave no batch\n.*epoch 2"):
        ravine.train(task(train=Once(points())), batch_size=16, epochs=2)
    with pytest.raises(TaskError, match=r"the data gave no batch\n.*valid"):
        ravine.train(task(valid=Once(points())), epochs=2)
    dropped = DataLoader(TensorDataset(*points()), batch_size=64, drop_last=True)
    with pytest.raises(TaskError, match="drop_last"):
        ravine.train(task(train=dropped), epochs=1)


def test_a_batch_that_is_no_pair_is_refused() -> None:
    three = DataLoader(TensorDataset(*points(), torch.zeros(40)), batch_size=8)
    with pytest.raises(ArgumentTypeError, match="of Tensor, Tensor, Tensor"):
        ravine.train(task(train=three), epochs=1)
    with pytest.raises(ArgumentTypeError, match="collate_fn"):
        ravine.train(task(train=DataLoader(points()[0], batch_size=8)), epochs=1)


@pytest.mark.parametrize(
    ("batch_size", "steps"), [("all", 1), (1, 40), (16, 3), (39, 2), (40, 1), (5000, 1)]
)
def test_every_batch_size_trains_on_every_row(batch_size: int | str, steps: int) -> None:
    seen: list[int] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(len(target))
        return nn.functional.cross_entropy(output, target)

    record = ravine.train(task(loss=loss, valid=None), batch_size=batch_size, epochs=2)
    assert len(seen) == record.facts["steps"] == 2 * steps
    assert sum(seen) == 80
    assert record.config["batch_size"] == batch_size
    assert record.facts["train_samples"] == 40


@pytest.mark.parametrize("batch_size", [0, -3, 1.5, True, "most", "64"])
def test_a_bad_batch_size_is_refused(batch_size: Any) -> None:
    with pytest.raises(ArgumentError, match="batch size cannot be used") as caught:
        ravine.train(task(), batch_size=batch_size)
    assert repr(batch_size) in str(caught.value)
