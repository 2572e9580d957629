"""A run that diverges: what is told, and which weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import line, mlp, numbers, points, poisoned, same, task, weights

import ravine
from ravine.errors import NonFiniteError
from ravine.tasks.metrics import accuracy
from ravine.training import Record
from ravine.training.batches import TensorBatches
from ravine.training.events import RunEnded
from ravine.training.loop import Loop


def finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def squares(output: Tensor, target: Tensor) -> Tensor:
    """A loss that is infinite for the inputs of `poisoned`."""
    return nn.functional.cross_entropy(output, target) + (output**2).mean()


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
        "config.json", "history.jsonl", "steps.jsonl", "record.json", "model.safetensors",
        "report.html",
        ".lock",
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
            look_every=look,
        )
        rows.append(numbers([loop.run_epoch()[0] for _ in range(2)]))
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
