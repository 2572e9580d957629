"""How a run ends: early, diverged, interrupted, failed; and which weights are kept then."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import line, mlp, numbers, points, poisoned, same, task, weights

import ravine
from ravine.errors import NonFiniteError, ShapeError, TaskError
from ravine.tasks.metrics import accuracy
from ravine.training import Record
from ravine.training.batches import TensorBatches
from ravine.training.events import EpochDone, RunEnded, RunStarted, StepDone
from ravine.training.loop import Loop


def finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def squares(output: Tensor, target: Tensor) -> Tensor:
    """A loss that is infinite for the inputs of `poisoned`."""
    return nn.functional.cross_entropy(output, target) + (output**2).mean()


# Early stopping


def overfitting(**changes: Any) -> ravine.Task:
    """Labels that are noise: the validation loss rises as soon as they are learnt."""
    X, _ = points(30)
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 3, (30,), generator=generator)
    return task(train=(X, y), **changes)


STOPPED = {"optimizer": "adam(lr=0.05)", "epochs": 60, "batch_size": 10}


def test_early_stopping_brings_back_the_best_weights_and_says_so() -> None:
    kept: list[dict[str, Tensor]] = []
    model: list[nn.Module] = []

    def spy(event: Any) -> None:
        if isinstance(event, RunEnded):
            model.append(event.record.model)

    made = overfitting(test=points(20, seed=9))
    record = ravine.train(made, **STOPPED, regularize="early_stopping(patience=4)", listeners=[spy])
    losses = record.history.column("valid/loss")
    best = losses.index(min(losses)) + 1
    assert record.status == "stopped early"
    assert len(losses) == best + 4 < 60
    assert record.metrics["best_epoch"] == best
    assert record.metrics["valid/loss"] == min(losses)
    assert f"best {min(losses):.6g} at epoch {best}" in record.message
    assert f"the weights of epoch {best} are kept" in record.message
    assert model == [record.model]
    # The same run, ended at the best epoch, has the same weights; so have its test numbers.
    short = ravine.train(made, **STOPPED | {"epochs": best}, regularize=())
    assert same(weights(record.model), weights(short.model))
    assert record.metrics["test/loss"] == short.metrics["test/loss"]
    assert kept == []


def test_the_best_weights_come_back_also_where_the_run_was_not_stopped() -> None:
    record = ravine.train(
        overfitting(), **STOPPED | {"epochs": 20}, regularize="early_stopping(40)"
    )
    losses = record.history.column("valid/loss")
    assert record.status == "completed"
    assert record.metrics["valid/loss"] == min(losses) < losses[-1]
    assert record.metrics["best_epoch"] == losses.index(min(losses)) + 1


def test_early_stopping_can_leave_the_last_weights() -> None:
    choice = "early_stopping(patience=4, restore_best=False)"
    record = ravine.train(overfitting(), **STOPPED, regularize=choice)
    assert record.status == "stopped early"
    assert "best_epoch" not in record.metrics
    assert record.metrics["valid/loss"] == record.history[-1]["valid/loss"]
    assert record.message.startswith("valid/loss has not improved for 4 epochs")
    short = ravine.train(overfitting(), **STOPPED | {"epochs": len(record.history)}, regularize=())
    assert same(weights(record.model), weights(short.model))


def test_early_stopping_on_accuracy_and_on_the_training_loss() -> None:
    record = ravine.train(
        overfitting(), **STOPPED, regularize="early_stopping(3, 'valid/accuracy')"
    )
    assert record.metrics["valid/accuracy"] == max(record.history.column("valid/accuracy"))
    alone = overfitting(valid=None)
    record = ravine.train(
        alone, "sgd(lr=0)", epochs=9, regularize="early_stopping(2, 'train/loss')"
    )
    assert len(record.history) == 3
    with pytest.raises(LookupError, match="valid/loss"):
        ravine.train(alone, regularize="early_stopping()")


# Schedules that listen, averages


def test_plateau_listens_to_the_validation_loss() -> None:
    record = ravine.train(
        overfitting(), "adam(lr=plateau(0.05, factor=0.5, patience=1))", epochs=25, batch_size=10
    )
    rates = record.history.column("lr")
    losses = record.history.column("valid/loss")
    # torch's own plateau, told the same losses; its rate acts from the next epoch on.
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    known = torch.optim.lr_scheduler.ReduceLROnPlateau(dummy, factor=0.5, patience=1)
    expected = []
    for loss in losses:
        expected.append(dummy.param_groups[0]["lr"])
        known.step(loss)
    assert rates == pytest.approx(expected, rel=1e-12)
    assert rates[-1] < 0.05


def test_plateau_listens_to_the_training_loss_where_nothing_is_validated() -> None:
    record = ravine.train(
        task(valid=None, loss=lambda o, t: 0 * o.sum()),
        "sgd(lr=plateau(0.1, patience=1))",
        epochs=5,
    )
    assert record.history.column("lr") == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01])


def test_the_average_is_what_is_validated_and_kept() -> None:
    made = task()
    steps: list[dict[str, Tensor]] = []

    class Watched(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                steps.append(weights(self))
            return super().forward(input)

    torch.manual_seed(0)
    watched = task(model=Watched(*mlp()))
    record = ravine.train(watched, "sgd(lr=0.5, average=0.8)", batch_size=20, epochs=3)
    plain = ravine.train(watched, "sgd(lr=0.5)", batch_size=20, epochs=3)
    raw = [*steps[1:6], weights(plain.model)]
    average = steps[0]
    for weight in raw:
        average = {name: 0.8 * average[name] + 0.2 * weight[name] for name in average}
    for name, value in weights(record.model).items():
        assert torch.allclose(value, average[name], atol=1e-6)
    X, y = made.valid
    with torch.no_grad():
        output = record.model(X)
    expected = nn.functional.cross_entropy(output, y).item()
    assert record.metrics["valid/loss"] == pytest.approx(expected, rel=1e-5)
    # The training itself is not disturbed by looking at the average.
    assert record.history.column("train/loss") == plain.history.column("train/loss")


def test_early_stopping_keeps_the_best_average() -> None:
    choices = STOPPED | {"optimizer": "adam(lr=0.05, average=0.7)"}
    record = ravine.train(overfitting(), **choices, regularize="early_stopping(3)")
    X, y = points(20, seed=1)
    with torch.no_grad():
        reached = nn.functional.cross_entropy(record.model(X), y).item()
    assert reached == pytest.approx(min(record.history.column("valid/loss")), rel=1e-5)


# Divergence


def diverged(*args: Any, **options: Any) -> tuple[NonFiniteError, Record]:
    with pytest.raises(NonFiniteError) as caught:
        ravine.train(*args, **options)
    return caught.value, caught.value.record  # type: ignore[attr-defined]


def test_a_loss_that_is_not_finite_ends_the_run_before_its_step() -> None:
    made = task(train=poisoned(), loss=squares, valid=None)
    taken: list[int] = []

    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            taken.append(1)
            return super().step(closure)

    error, record = diverged(made, lambda p: Counting(p, lr=0.01), batch_size=10, epochs=5)
    assert record.status == "diverged"
    assert record.facts["steps"] == len(taken) < 4
    text = str(error)
    assert text.startswith("the loss became inf")
    assert f"step {len(taken) + 1}, epoch 1" in text
    assert "lr 0.01; the weights are finite" in text
    assert "lower lr (try 0.001), clip the gradient (clip_norm=1), warm up" in text
    assert text in record.message
    assert finite(record.model)
    assert record.history == []


def test_weights_that_ran_away_are_those_of_the_last_epoch() -> None:
    # On a line the error of too large a rate grows by a factor each step, into the infinite.
    made = line()
    error, record = diverged(made, "gradient_descent(lr=50)", batch_size="all", epochs=500)
    rows = len(record.history)
    assert 10 < rows < 500
    assert "the loss became inf" in str(error)
    assert f"step {rows + 1}, epoch {rows + 1}" in str(error)
    assert f"epoch {rows}" in record.message
    short = ravine.train(made, "gradient_descent(lr=50)", batch_size="all", epochs=rows)
    assert same(weights(record.model), weights(short.model))
    assert record.metrics == short.metrics
    assert record.facts["steps"] == rows


def test_weights_that_are_not_finite_after_an_epoch_end_the_run_too() -> None:
    # The gradient of sqrt at 0 is infinite while the loss is not: one step, and all is lost.
    made = line(loss=lambda o, t: (o - o).abs().sqrt().sum() + (o**2).mean(), valid=None)
    error, record = diverged(made, "sgd(lr=0.1)", epochs=1, batch_size="all")
    assert str(error).startswith("the weights are not finite")
    assert "step 1, epoch 1" in str(error)
    assert "not finite: weight, bias" in str(error)
    assert same(weights(record.model), weights(made.model))


def test_divergence_leaves_a_whole_run_directory(tmp_path: Path) -> None:
    events: list[Any] = []
    _, record = diverged(
        line(test=line().train),
        "gradient_descent(lr=50)",
        batch_size="all",
        epochs=500,
        run_dir=tmp_path / "run",
        listeners=[events.append],
    )
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.json", "history.jsonl", "record.json", "model.safetensors", "report.html",
    }  # fmt: skip
    text = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8")
    assert len(text.splitlines()) == len(record.history)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].record is record
    assert not any(name.startswith("test/") for name in record.metrics)


def test_divergence_with_early_stopping_keeps_the_best_weights() -> None:
    made = line(valid=line().train)
    _, record = diverged(
        made,
        "gradient_descent(lr=warmup(20) >> constant(50))",
        batch_size="all",
        epochs=500,
        regularize="early_stopping(400)",
    )
    losses = record.history.column("valid/loss")
    assert record.metrics["valid/loss"] == min(losses)
    assert finite(record.model)
    x, y = made.train
    assert nn.functional.mse_loss(record.model(x), y).item() == pytest.approx(min(losses))


def test_divergence_of_an_average_keeps_a_finite_average() -> None:
    _, record = diverged(
        line(), "gradient_descent(lr=50, average=0.9)", batch_size="all", epochs=500
    )
    assert finite(record.model)


@pytest.mark.parametrize("bad", [0, 5, 17, 39])
def test_where_the_loss_is_looked_at_now_and_then_the_step_is_told_all_the_same(bad: int) -> None:
    # As on a GPU, where looking at every loss would mean waiting for it.
    X, y = poisoned(40, bad)
    model = mlp()
    loop = Loop(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        loss=squares,
        batches=TensorBatches((X, y), 1, torch.device("cpu"), None),
        valid=None,
        metrics={},
        stopper=None,
        emit=None,
        look_every=6,
    )
    with pytest.raises(NonFiniteError, match=rf"step {bad + 1}, epoch 1\b"):
        loop.run_epoch()
    loop.go_back()
    assert finite(model)


def test_looking_now_and_then_gives_the_same_rows() -> None:
    rows = []
    for look in (1, 7):
        torch.manual_seed(0)
        model = mlp()
        device = torch.device("cpu")
        loop = Loop(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss=nn.functional.cross_entropy,
            batches=TensorBatches(points(), 3, device, 0),
            valid=TensorBatches(points(20), 7, device, None),
            metrics={"accuracy": accuracy},
            stopper=None,
            emit=None,
            look_every=look,
        )
        rows.append(numbers([loop.run_epoch()[0] for _ in range(2)]))
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


# Interruptions and other errors


def at_epoch(number: int, error: BaseException) -> Callable[[Any], None]:
    def listen(event: Any) -> None:
        if isinstance(event, EpochDone) and event.row["epoch"] == number:
            raise error

    return listen


def test_ctrl_c_in_a_listener_keeps_what_was_reached(tmp_path: Path) -> None:
    listeners = [at_epoch(2, KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt) as caught:
        ravine.train(task(), batch_size=10, epochs=5, listeners=listeners, run_dir=tmp_path / "run")
    record = caught.value.record  # type: ignore[attr-defined]
    assert (record.status, len(record.history)) == ("interrupted", 2)
    assert record.message == "in epoch 3, after step 8"
    assert (tmp_path / "run" / "record.json").is_file()
    short = ravine.train(task(), batch_size=10, epochs=2)
    assert same(weights(record.model), weights(short.model))


def test_ctrl_c_in_the_middle_of_an_epoch() -> None:
    class Sudden(nn.Sequential):
        calls = 0

        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                Sudden.calls += 1
                if Sudden.calls == 7:
                    signal.raise_signal(signal.SIGINT)
            return super().forward(input)

    torch.manual_seed(0)
    ended: list[Any] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        ravine.train(task(model=Sudden(*mlp())), batch_size=10, epochs=5, listeners=[ended.append])
    record = caught.value.record  # type: ignore[attr-defined]
    assert record.message == "in epoch 2, after step 6"
    assert (record.status, len(record.history), record.facts["steps"]) == ("interrupted", 1, 6)
    assert isinstance(ended[-1], RunEnded)


def test_an_error_after_the_first_step_keeps_the_run(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        ravine.train(
            task(),
            epochs=5,
            listeners=[at_epoch(3, ZeroDivisionError("of a listener"))],
            run_dir=tmp_path / "run",
        )
    record = caught.value.record  # type: ignore[attr-defined]
    assert (record.status, len(record.history)) == ("failed", 3)
    assert record.message == "ZeroDivisionError: of a listener"
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_an_error_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    def start(event: Any) -> None:
        if isinstance(event, RunStarted):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ravine.train(task(), run_dir=tmp_path / "run", listeners=[start])
    wrong = task(train=(points()[0][:, :3], points()[1]), valid=None)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ravine.train(wrong, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError):
        ravine.train(wrong, run_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_metric_that_returns_nothing_or_one_number() -> None:
    def nothing(output: Tensor, target: Tensor) -> Tensor:
        return output[:0]

    def one(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) == target).double().mean()

    with pytest.raises(ShapeError, match="metric 'nothing' returned nothing"):
        ravine.train(task(metrics=[nothing]), epochs=1)
    record = ravine.train(task(metrics=[one, "accuracy"]), epochs=1)
    assert record.metrics["valid/one"] == pytest.approx(record.metrics["valid/accuracy"])


def test_what_a_model_keeps_of_its_evaluation_can_be_trained_through() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.out = nn.Linear(4, 3)
            self.seen: Tensor | None = None

        def forward(self, input: Tensor) -> Tensor:
            if not self.training:
                self.seen = torch.cos(input.mean(0))
            shift = self.seen if self.seen is not None else torch.zeros(4)
            output: Tensor = self.out(input * self.scale * shift)
            return output

    record = ravine.train(task(model=Remembers()), epochs=2)
    assert math.isfinite(record.metrics["train/loss"])


def test_a_buffer_that_grows_is_no_trouble() -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)
            self.register_buffer("table", torch.zeros(0), persistent=False)

        def forward(self, input: Tensor) -> Tensor:
            if len(self.table) < len(input):
                self.table = torch.zeros(len(input))
            output: Tensor = self.out(input) + self.table[: len(input), None]
            return output

    record = ravine.train(task(model=Grows()), batch_size=7, epochs=2)
    assert record.status == "completed"


def test_events_of_steps_are_not_sent_for_every_step() -> None:
    events: list[Any] = []
    ravine.train(task(), batch_size=1, epochs=3, listeners=[events.append])
    assert 1 <= sum(isinstance(event, StepDone) for event in events) < 120


def test_an_empty_stream_leaves_no_run(tmp_path: Path) -> None:
    class Nothing(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(TaskError, match="gave no batch"):
        ravine.train(task(train=Nothing()), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
