"""A run that diverges: what is told, and which weights are kept."""

from __future__ import annotations

import math
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


def diverged(*args: Any, **options: Any) -> tuple[NonFiniteError, Record]:
    with pytest.raises(NonFiniteError) as caught:
        ravine.train(*args, **options)
    return caught.value, caught.value.record  # type: ignore[attr-defined]


def state_after(step: int, *args: Any, **options: Any) -> dict[str, Tensor]:
    """The weights after a step, taken from outside."""
    found: dict[str, Tensor] = {}

    def look(state: Any) -> None:
        if state.step == step:
            found.update(weights(state.model))
            state.stop("seen")

    ravine.train(*args, **options, on_step=look)
    return found


def test_a_loss_that_is_not_finite_ends_the_run_before_its_step() -> None:
    made = task(train=poisoned(), loss=squares, valid=None)
    error, record = diverged(made, "sgd(lr=0.01)", batch_size=10, epochs=5)
    assert record.status == "diverged"
    steps = record.facts["steps"]
    assert 0 < steps < 4
    text = str(error)
    assert text.startswith("the loss became inf")
    assert f"step {steps + 1}, epoch 1" in text
    assert error.step == steps + 1
    assert "lr 0.01; first not finite: the loss, of an output that is finite" in text
    assert "lower lr (try 0.001), clip the gradient (clip_norm=1), warm up" in text
    assert text in record.message
    assert same(
        weights(record.model), state_after(steps, made, "sgd(lr=0.01)", batch_size=10, epochs=5)
    )
    assert record.history == []


class Faulty(nn.Module):
    """Infinite where its input is larger than anything good."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).exp() * (x * x)


def test_the_module_that_is_first_is_named_and_its_buffers_are_as_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), Faulty(), nn.Dropout(0.2), nn.Linear(4, 3))
    made = task(model=model, train=poisoned(), valid=None)
    options = {"batch_size": 10, "epochs": 5}
    error, record = diverged(made, "adam(lr=0.01)", **options)
    assert "first not finite: the output of module '1' (Faulty), of inputs" in str(error)
    assert error.step is not None
    taken = error.step - 1
    assert same(weights(record.model), state_after(taken, made, "adam(lr=0.01)", **options))


def bent(output: Tensor, target: Tensor) -> Tensor:
    """The gradient of sqrt at 0 is infinite while the loss is not."""
    return (output - output).abs().sqrt().sum() + (output**2).mean()


def late(step: int) -> Any:
    """A loss whose gradient is infinite from a step on, without anything in the loss."""
    calls = [0]

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            self.calls += torch.is_grad_enabled()
            calls[0] += 1
            plain = nn.functional.mse_loss(output, target)
            return plain + (bent(output, target) if int(self.calls) == step else 0 * plain)

    return Loss()


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("own", [{}, {"run_dir": True, "checkpoint_every": 1}], ids=["", "dir"])
def test_a_gradient_that_is_not_finite_is_found_after_its_step_and_gone_back_before(
    step: int, own: dict[str, Any], tmp_path: Path
) -> None:
    # Four steps an epoch, looked at as on a CPU: the next loss is NaN, one step too late.
    own = own | ({"run_dir": tmp_path / "run"} if own else {})
    made = line(loss=late(step), valid=None)
    error, record = diverged(made, "adam(lr=0.1)", epochs=4, batch_size=4, **own)
    assert f"step {step}, epoch {(step - 1) // 4 + 1}" in str(error)
    assert "first not finite: the gradient of weight 'bias', of a loss that is finite" in str(error)
    assert record.facts["steps"] == step - 1
    assert len(record.history) == (step - 1) // 4
    if step > 1:
        fine = line(loss=late(99), valid=None)
        there = state_after(step - 1, fine, "adam(lr=0.1)", epochs=4, batch_size=4)
        assert same(weights(record.model), there)
    else:
        assert same(weights(record.model), weights(made.model))


def test_weights_that_overflow_in_a_step_of_a_finite_gradient() -> None:
    made = line(valid=None)
    error, record = diverged(made, "sgd(lr=1e308, momentum=0.9)", epochs=3, batch_size=8)
    assert "first not finite: weight 'weight' after the step, of a finite gradient" in str(
        error
    ) or "the loss became inf" in str(error)
    assert finite(record.model)


def test_the_state_of_the_step_before_is_resumed_with_another_policy(tmp_path: Path) -> None:
    made = task(train=poisoned(), loss=squares, valid=None)
    options: dict[str, Any] = {"batch_size": 10, "epochs": 3}
    diverged(made, "sgd(lr=0.01)", **options, run_dir=tmp_path)
    resumed = ravine.train(made, resume=tmp_path, nonfinite="skip")
    whole = ravine.train(made, "sgd(lr=0.01)", **options, nonfinite="skip")
    assert same(weights(resumed.model), weights(whole.model))
    assert numbers(resumed.history) == numbers(whole.history)
    assert resumed.facts["skipped"] == whole.facts["skipped"] == 3


def test_a_loss_that_runs_away_ends_the_run_while_it_is_finite() -> None:
    # On a line the error of too large a rate grows by a factor each step.
    made = line()
    error, record = diverged(made, "gradient_descent(lr=50)", batch_size="all", epochs=500)
    text = str(error)
    assert text.startswith("the loss runs away")
    assert "less than 1000 times the first epoch's" in text
    losses = record.history.column("train/loss")
    above = [loss > 1e3 * losses[0] for loss in losses]
    assert above[-3:] == [True] * 3
    assert above[-4] is False
    assert finite(record.model)


def test_losses_that_are_high_but_fall_or_rise_once_are_no_divergence() -> None:
    model = nn.Linear(1, 1).double()
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    with torch.no_grad():
        model.weight.fill_(2.0 + 1e-6)
        model.bias.fill_(0)
    made = line(model=model, train=(x, 2 * x))  # as good as solved: the first loss is 1e-12

    def push(state: Any) -> None:
        with torch.no_grad():
            state.model.bias.add_({3: 1.0, 5: 1.0}.get(state.step, 0.0))

    record = ravine.train(made, "sgd(lr=0.01)", batch_size="all", epochs=12, on_step=push)
    assert record.status == "completed"
    assert max(record.history.column("train/loss")) > 1e9 * record.history[0]["train/loss"]


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
    assert names >= {
        "config.json", "history.jsonl", "record.json", "model.safetensors", "report.html",
        ".lock", "checkpoints",
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
        line(), "gradient_descent(lr=1e200, average=0.9)", batch_size="all", epochs=500
    )
    assert finite(record.model)


def loop_of(**changes: Any) -> Loop:
    torch.manual_seed(0)
    model = mlp()
    parts: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loss": nn.functional.cross_entropy,
        "valid": None,
        "metrics": {},
        "stopper": None,
    }
    return Loop(**parts | changes)


@pytest.mark.parametrize("bad", [0, 5, 17, 39])
def test_where_the_loss_is_looked_at_now_and_then_the_step_is_told_all_the_same(bad: int) -> None:
    # As on a GPU, where looking at every loss would mean waiting for it.
    batches = TensorBatches(poisoned(40, bad), 1, torch.device("cpu"), None)
    loop = loop_of(loss=squares, batches=batches, look_every=6)
    loop.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(NonFiniteError, match=rf"step {bad + 1}, epoch 1\b"):
        loop.run_epoch()


def test_looking_now_and_then_gives_the_same_rows() -> None:
    rows = []
    device = torch.device("cpu")
    for look in (1, 7):
        loop = loop_of(
            batches=TensorBatches(points(), 3, device, 0),
            valid=TensorBatches(points(20), 7, device, None),
            metrics={"accuracy": accuracy},
            look_every=look,
        )
        rows.append(numbers([loop.run_epoch()[0] for _ in range(2)]))
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    assert math.isfinite(rows[0][0]["train/loss"])
