"""A run: the same bits from the same seed, every form of data, every size of batch."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training_cases import FORMS, Stream, line, mlp, numbers, points, same, task, weights

import ravine
from ravine.errors import ArgumentError, ArgumentTypeError, RavineError, TaskError
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone
from ravine.training.threads import work

# The seed

REGULARIZED = ["dropout(0.3)", "clip_norm(1)"]


@pytest.mark.parametrize("regularize", [(), REGULARIZED], ids=["plain", "dropout"])
@pytest.mark.parametrize("form", ["tensors", "dataset", "loader"])
def test_the_same_seed_gives_the_same_bits(form: str, regularize: Any) -> None:
    runs = []
    for caller in (1, 2):
        torch.manual_seed(caller)  # what the caller drew before does not matter
        made = task(train=FORMS[form](points()))
        torch.manual_seed(caller)
        size = None if form == "loader" else 16
        runs.append(
            ravine.train(made, "adam(lr=0.01)", batch_size=size, epochs=3, regularize=regularize)
        )
    assert same(weights(runs[0].model), weights(runs[1].model))
    assert numbers(runs[0].history) == numbers(runs[1].history)
    assert runs[0].metrics == runs[1].metrics


def test_dropout_of_torch_is_seeded_too() -> None:
    # AlphaDropout draws from torch's global generator.
    model = nn.Sequential(nn.Linear(4, 16), nn.AlphaDropout(0.3), nn.Linear(16, 3))
    runs = []
    for caller in (1, 2):
        torch.manual_seed(caller)
        runs.append(ravine.train(task(model=model), "sgd(lr=0.1)", epochs=2))
    assert same(weights(runs[0].model), weights(runs[1].model))


def test_another_seed_gives_another_model_order_and_mask() -> None:
    records = [ravine.train("wine", epochs=1, seed=seed) for seed in (0, 1)]
    assert not same(weights(records[0].model), weights(records[1].model))

    made = task()  # the same weights from here on: order and masks differ
    order = [ravine.train(made, epochs=1, seed=seed, batch_size=8) for seed in (0, 1)]
    assert not same(weights(order[0].model), weights(order[1].model))
    masks = [
        ravine.train(made, epochs=1, seed=seed, batch_size="all", regularize="dropout(0.5)")
        for seed in (0, 1)
    ]
    assert not same(weights(masks[0].model), weights(masks[1].model))
    still = [ravine.train(made, epochs=1, seed=seed, batch_size="all") for seed in (0, 1)]
    assert same(weights(still[0].model), weights(still[1].model))


def test_the_task_and_the_callers_generators_are_left_as_they_were() -> None:
    made = task(model=mlp(0.5))
    before = weights(made.model)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    record = ravine.train(made, "adam(lr=0.1)", epochs=2, regularize=REGULARIZED)
    assert same(weights(made.model), before)
    assert made.model.training
    assert type(made.model[2]) is nn.Dropout
    assert made.model[2].p == 0.5
    assert all(p.grad is None for p in made.model.parameters())
    assert not record.model.training
    assert not same(weights(record.model), before)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


# Data


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


# Other arguments


@pytest.mark.parametrize("epochs", [-1, 1.0, True, "3"])
def test_bad_epochs_are_refused(epochs: Any) -> None:
    with pytest.raises(ArgumentError, match="epochs cannot be used"):
        ravine.train(task(), epochs=epochs)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, None, "0", True])
def test_a_bad_seed_is_refused(seed: Any) -> None:
    with pytest.raises(RavineError, match="the seed is"):
        ravine.train(task(), seed=seed)


@pytest.mark.parametrize("device", ["cpuu", "meta", 3.5, "cuda:99"])
def test_a_bad_device_is_refused(device: Any) -> None:
    with pytest.raises(ArgumentError, match="the device cannot be used"):
        ravine.train(task(), device=device)


def test_no_epoch_at_all(tmp_path: Path) -> None:
    made = task(test=points(10, seed=2))
    record = ravine.train(made, epochs=0, run_dir=tmp_path / "run", regularize="early_stopping()")
    assert same(weights(record.model), weights(made.model))
    assert (record.status, record.history, record.facts["steps"]) == ("completed", [], 0)
    assert set(record.metrics) == {"test/loss", "test/accuracy"}
    assert len(record.history.to_frame()) == 0
    assert "<html" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_task_by_name_by_function_by_file_and_as_an_object(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch, ravine\n"
        "def task(seed):\n"
        "    X = torch.linspace(-1, 1, 16)[:, None]\n"
        "    return ravine.Task(model=torch.nn.Linear(1, 1), loss='mse', train=(X, 2 * X),\n"
        "                       name='mine')\n"
    )
    assert ravine.train("wine", epochs=1).config["task"] == "wine"
    assert ravine.train(file, epochs=1).name == "mine"
    assert ravine.train(str(file), epochs=1).config["task"] == str(file)
    assert ravine.train(lambda seed: line(), epochs=1).name == "line"
    one, two = (ravine.train(file, epochs=0, seed=seed).model.weight for seed in (0, 1))
    assert not torch.equal(one, two)


def test_the_tasks_own_defaults_hold_where_nothing_is_said() -> None:
    defaults = {
        "optimizer": "sgd(lr=0.5)",
        "epochs": 2,
        "batch_size": 7,
        "regularize": ["dropout(0.25)"],
    }
    config = ravine.train(task(defaults=defaults)).config
    assert config["optimizer"] == "sgd(lr=0.5)"
    assert (config["epochs"], config["batch_size"]) == (2, 7)
    assert config["regularize"] == ["dropout(0.25)"]
    said = ravine.train(task(defaults=defaults), "adam", batch_size="all", epochs=1, regularize=())
    assert said.config["optimizer"] == "adam()"
    assert (said.config["epochs"], said.config["batch_size"]) == (1, "all")
    assert said.config["regularize"] == []
    bare = ravine.train(task()).config
    assert (bare["optimizer"], bare["batch_size"], bare["epochs"]) == ("adam(lr=0.001)", 64, 20)


# Events and record


def test_the_events_come_in_order_and_tell_the_run() -> None:
    events: list[Any] = []
    record = ravine.train(
        task(), "sgd(lr=0.1, l2=0.01)", batch_size=16, epochs=2, listeners=[events.append]
    )
    started, ended = events[0], events[-1]
    assert isinstance(started, RunStarted)
    assert (started.task, started.epochs, started.steps, started.batch_size) == ("points", 2, 6, 16)
    assert started.weights == 4 * 16 + 16 + 16 * 3 + 3
    assert started.notes == ("l2 on 112 weights; 19 biases and norm weights left out",)
    assert isinstance(ended, RunEnded)
    assert ended.record is record
    assert [e.row for e in events if isinstance(e, EpochDone)] == record.history
    steps = [e for e in events if isinstance(e, StepDone)]
    assert steps[0].step == steps[0].epoch == 1
    assert steps[0].lr == 0.1
    assert steps[0].gradient_norm > 0


def test_a_row_holds_the_numbers_of_its_epoch() -> None:
    record = ravine.train(line(), "gradient_descent(lr=0.1)", batch_size="all", epochs=2)
    first = record.history[0]
    x, y = line().train
    # From w = b = 0: the loss is the mean of y^2, its gradient -2 mean(x y) and -2 mean(y).
    slope, offset = 2 * (x * y).mean().item(), 2 * y.mean().item()
    assert first["train/loss"] == pytest.approx((y**2).mean().item(), rel=1e-12)
    assert first["gradient_norm"] == pytest.approx(np.hypot(slope, offset), rel=1e-12)
    assert (first["epoch"], first["step"], first["lr"]) == (1, 1, 0.1)
    assert first["seconds"] > 0
    assert record.metrics == {"train/loss": record.history[1]["train/loss"]}


def test_the_record_is_plain_json_of_the_agreed_shape() -> None:
    record = ravine.train(task(test=points(9)), "adam", epochs=2, regularize=["dropout(0.1)"])
    data = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert data == record.to_json()
    assert set(data) == {
        "kind", "name", "ravine", "status", "message",
        "config", "environment", "facts", "metrics", "history",
    }  # fmt: skip
    assert (data["kind"], data["name"], data["status"], data["message"]) == (
        "train", "points", "completed", "",
    )  # fmt: skip
    assert data["config"] == {
        "task": "points",
        "optimizer": "adam()",
        "loss": "cross_entropy()",
        "batch_size": 64,
        "epochs": 2,
        "regularize": ["dropout(0.1)"],
        "seed": 0,
        "device": "cpu",
    }
    assert {"python", "torch", "platform", "cpu", "threads"} <= set(data["environment"])
    assert {
        "weights", "optimizer", "kernel", "train_samples", "seconds", "steps", "samples_per_second",
    } <= set(data["facts"])  # fmt: skip
    assert set(data["history"][0]) == {
        "epoch", "step", "lr", "gradient_norm", "train/loss", "valid/loss", "valid/accuracy",
        "seconds",
    }  # fmt: skip
    assert set(data["metrics"]) == {
        "train/loss", "valid/loss", "valid/accuracy", "test/loss", "test/accuracy",
    }  # fmt: skip


def test_the_history_is_a_frame_and_the_record_says_what_it_is(tmp_path: Path) -> None:
    record = ravine.train(task(), epochs=3)
    frame = record.history.to_frame()
    assert list(frame.index) == [1, 2, 3]
    assert frame.index.name == "epoch"
    assert frame["valid/loss"].tolist() == record.history.column("valid/loss")
    assert record.history.column("none of it") == [None] * 3
    assert repr(record).startswith("Record('points', completed: train/loss=")
    assert "valid/accuracy=" in repr(record)
    page = record.report(tmp_path / "page.html")
    assert page.stat().st_size > 100_000


def test_a_validation_loss_that_is_not_finite_is_told_and_not_hidden(tmp_path: Path) -> None:
    X, y = points(5)
    X[0] = 3e38  # its square is infinite; the training data's is not
    made = task(loss=lambda o, t: nn.functional.cross_entropy(o, t) + (o**2).mean(), valid=(X, y))
    record = ravine.train(made, epochs=1, run_dir=tmp_path / "run")
    assert record.status == "completed"
    assert not np.isfinite(record.metrics["valid/loss"])
    text = (tmp_path / "run" / "record.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["valid/loss"] in (
        "NaN", "Infinity",
    )  # fmt: skip


# Threads


@pytest.mark.parametrize(
    ("rows", "hidden", "batch_size", "one"),
    [(40, 16, 16, True), (2000, 1000, 64, True), (2000, 1000, "all", False), (8, 1, 1, True)],
)
def test_small_steps_run_on_one_thread_and_the_callers_number_comes_back(
    rows: int, hidden: int, batch_size: int | str, one: bool
) -> None:
    seen: list[int] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return nn.functional.cross_entropy(output, target)

    model = nn.Sequential(nn.Linear(4, hidden), nn.Linear(hidden, 3))
    made = task(model=model, loss=loss, train=points(rows))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        record = ravine.train(made, batch_size=batch_size, epochs=1)
        assert set(seen) == {1 if one else 3}
        assert record.environment["threads"] == seen[0]
        assert torch.get_num_threads() == 3
        with pytest.raises(ArgumentTypeError):
            ravine.train(made, loss=lambda o, t: 1.0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_callers_threads_do_not_change_the_bits_of_a_small_run() -> None:
    before = torch.get_num_threads()
    records = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            records.append(ravine.train("digits", epochs=2))
    finally:
        torch.set_num_threads(before)
    assert same(weights(records[0].model), weights(records[1].model))


def test_the_work_counts_the_places_of_a_weight() -> None:
    weight = nn.Linear(10, 1, bias=False)
    assert work(weight, torch.zeros(8, 10), 4) == 6 * 10 * 4
    assert work(weight, torch.zeros(8, 7, 10), 4) == 6 * 10 * 4 * 10  # of 7 tokens, or channels
    assert work(weight, torch.zeros(8, 3, 32, 32), 4) == 6 * 10 * 4 * 32 * 32
    assert work(weight, torch.zeros(8, 128, dtype=torch.int64), 4) == 6 * 10 * 4 * 128
