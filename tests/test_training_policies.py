"""Steps that are left out, and runs that go back: what comes of it, also across a kill."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_divergence import diverged, finite, squares
from torch import Tensor, nn
from training_cases import line, numbers, points, poisoned, same, task, weights

import ravine
from ravine.cli.live import LiveDisplay
from ravine.cli.outlet import Outlet
from ravine.cli.plain import PlainDisplay
from ravine.errors import ArgumentError, NonFiniteError
from ravine.training.checkpoints import Store
from ravine.training.events import Recovered
from ravine.training.lines import read_steps
from ravine.training.recovery.policy import ROLLBACKS, SKIPS

# Skip


def without(bad: int, epochs: int, lr: float) -> dict[str, Tensor]:
    """The loop by hand, on every batch but those with the bad row."""
    made = task(train=poisoned(bad=bad), loss=squares, valid=None)
    model = made.model
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    from ravine.training.batches import TensorBatches

    batches = TensorBatches(made.train, 8, torch.device("cpu"), 3)
    for epoch in range(1, epochs + 1):
        for X, y in batches.epoch(epoch):
            if X.abs().max() < 1e20:
                optimizer.zero_grad()
                squares(model(X), y).backward()
                optimizer.step()
    return weights(model)


def test_skipped_steps_are_as_if_their_batch_was_not_there() -> None:
    seen: list[Any] = []
    made = task(train=poisoned(bad=11), loss=squares, valid=None)
    record = ravine.train(
        made, "sgd(lr=0.05, momentum=0.9)", batch_size=8, epochs=3, seed=3, nonfinite="skip",
        listeners=[seen.append],
    )  # fmt: skip
    told = [event for event in seen if isinstance(event, Recovered)]
    assert record.status == "completed"
    assert record.facts["skipped"] == len(told) == 3
    assert record.facts["steps"] == 3 * 4
    assert "left out in epoch 2: the loss became inf (2 so far)" in told[1].text
    for name, value in without(11, 3, 0.05).items():
        torch.testing.assert_close(record.model.state_dict()[name], value)


def test_statistics_of_batch_norm_are_as_before_a_skipped_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    X, y = points()
    X[5] = torch.inf
    from torch.utils.data import TensorDataset

    made = task(model=model, train=TensorDataset(X, y), valid=None)
    record = ravine.train(made, "sgd(lr=0.05)", batch_size=8, epochs=2, nonfinite="skip")
    assert record.facts["skipped"] == 2
    assert torch.isfinite(record.model.state_dict()["0.running_mean"]).all()
    assert int(record.model.state_dict()["0.num_batches_tracked"]) == 8


def test_too_many_in_a_row_end_the_run() -> None:
    made = line(loss=lambda o, t: (o * torch.inf).sum(), valid=None)
    error, record = diverged(made, "sgd(lr=0.1)", batch_size=1, epochs=3, nonfinite="skip")
    assert f"after {SKIPS} skipped steps" in str(error)
    assert "first not finite: the loss, of an output that is finite" in str(error)
    assert record.facts["skipped"] == SKIPS
    assert same(weights(record.model), weights(made.model))


def test_an_epoch_of_nothing_but_skipped_steps_ends_the_run() -> None:
    made = line(loss=lambda o, t: (o * torch.inf).sum(), valid=None)
    error, _ = diverged(made, "sgd(lr=0.1)", batch_size="all", epochs=3, nonfinite="skip")
    assert "every step of the epoch was skipped" in str(error)


def test_skipping_goes_not_with_steps_inside_of_the_backward_pass() -> None:
    with pytest.raises(ArgumentError, match="in_backward"):
        ravine.train(line(), "adam(lr=0.1, in_backward=True)", epochs=1, nonfinite="skip")


# Rollback


def test_a_run_goes_back_and_on_with_half_the_rate(tmp_path: Path) -> None:
    # lr 5 diverges on the line; the stable rates are those below about 1.
    seen: list[Any] = []
    record = ravine.train(
        line(), "gradient_descent(lr=5)", batch_size="all", epochs=40, nonfinite="rollback",
        run_dir=tmp_path / "run", listeners=[seen.append],
    )  # fmt: skip
    told = [event for event in seen if isinstance(event, Recovered)]
    count = record.facts["rollbacks"]
    assert record.status == "completed"
    assert 1 <= count == len(told) <= ROLLBACKS
    assert record.history[-1]["lr"] == 5 * 0.5**count
    assert [row["epoch"] for row in record.history] == list(range(1, 41))
    assert record.metrics["train/loss"] < record.history[0]["train/loss"]
    assert f"lr times {0.5**count:g} ({count} so far)" in told[-1].text
    lines = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(text)["epoch"] for text in lines] == list(range(1, 41))


@pytest.mark.parametrize("lr", ["5", "warmup(3) >> constant(5)"])
@pytest.mark.parametrize("average", ["", ", average=0.9"])
def test_after_a_rollback_the_steps_are_those_of_the_lower_rate(lr: str, average: str) -> None:
    # From the start: a loss that is infinite in the first step once the rate is too large.
    made = line(slope=1e3, valid=None)
    optimizer = f"gradient_descent(lr={lr}{average})"
    rolled = ravine.train(made, optimizer, batch_size="all", epochs=30, nonfinite="rollback")
    count = rolled.facts["rollbacks"]
    assert count
    assert rolled.history[-1]["lr"] == 5 * 0.5**count


def test_a_run_that_never_gets_better_ends(tmp_path: Path) -> None:
    made = task(train=poisoned(), loss=squares, valid=None)
    error, record = diverged(
        made, "sgd(lr=0.01)", batch_size=10, epochs=3, nonfinite="rollback", run_dir=tmp_path
    )
    assert record.facts["rollbacks"] == ROLLBACKS
    assert "first not finite: the loss" in str(error)
    assert finite(record.model)


def bounded(output: Tensor, target: Tensor) -> Tensor:
    """A loss that is infinite where the output is large, so that large rates fail soon."""
    return (output - target).square().mean() * (torch.inf if output.abs().max() > 30 else 1)


class KilledError(Exception):
    """Ends a run as a kill does."""


@pytest.mark.parametrize("every", [3, "1h"])
@pytest.mark.parametrize("step", [1, 13, 23, 41])
@pytest.mark.parametrize(
    ("policy", "optimizer"),
    [
        ("rollback", "sgd(lr=warmup(24) >> constant(12), momentum=0.5)"),
        ("rollback", "sgd(lr=8, momentum=0.5)"),
        ("skip", "sgd(lr=0.05, momentum=0.9)"),
    ],
    ids=["schedule", "number", "skip"],
)
def test_counts_and_rates_survive_a_kill(
    policy: str,
    optimizer: str,
    step: int,
    every: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ravine.training.keeper import Keeper

    def made() -> ravine.Task:
        if policy == "skip":
            return task(train=poisoned(), loss=squares)
        return line(loss=bounded)

    options: dict[str, Any] = {"batch_size": 4, "epochs": 12, "nonfinite": policy}
    steps = {} if every == "1h" else {"checkpoint_every": every}
    whole = ravine.train(made(), optimizer, **options, **steps, run_dir=tmp_path / "whole")
    assert whole.facts.get("rollbacks", 0) + whole.facts.get("skipped", 0) > 0
    after, calls = Keeper.after_step, [0]

    def killed(self: Keeper) -> None:
        after(self)
        calls[0] += 1
        if calls[0] == step:
            raise KilledError

    save = Store.save

    def at_once(self: Store, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        self.wait()  # no thread may write after the "kill"

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(Store, "save", at_once)
        patched.setattr(Keeper, "after_step", killed)
        patched.setattr(Keeper, "end", lambda self, whole: None)
        ravine.train(made(), optimizer, **options, run_dir=tmp_path / "run", checkpoint_every=every)
    resumed = ravine.train(made(), resume=tmp_path / "run", **steps)
    assert same(weights(resumed.model), weights(whole.model))
    assert numbers(resumed.history) == numbers(whole.history)
    for name in ("skipped", "rollbacks", "steps"):
        assert resumed.facts.get(name) == whole.facts.get(name)


def test_a_policy_that_is_not_known() -> None:
    with pytest.raises(ArgumentError, match="nonfinite cannot be used") as caught:
        ravine.train(line(), nonfinite="rolback")  # type: ignore[arg-type]
    assert "one of stop, skip, rollback" in str(caught.value)
    assert "did you mean 'rollback'?" in str(caught.value)


def test_the_replay_that_finds_nothing_leaves_a_finite_state() -> None:
    # The loss depends on how often it was called, which no repetition can bring back.
    calls = [0]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls[0] += 1
        return (output - target).square().mean() * (torch.inf if calls[0] == 6 else 1)

    with pytest.raises(NonFiniteError) as caught:
        ravine.train(line(valid=None, loss=loss), "sgd(lr=0.1)", batch_size=4, epochs=3)
    record = caught.value.record  # type: ignore[attr-defined]
    assert "nothing that was not finite when the step was repeated" in str(caught.value)
    assert record.facts["steps"] == 5
    assert finite(record.model)


@pytest.mark.parametrize("make", [PlainDisplay, LiveDisplay])
def test_what_was_done_is_told_and_taken_back_in_the_logs(make: Any, tmp_path: Path) -> None:
    stream = io.StringIO()
    run = tmp_path / "run"
    with make(Outlet(stream)) as display:
        record = ravine.train(
            line(loss=bounded), "sgd(lr=8, momentum=0.5)", batch_size=4, epochs=12,
            nonfinite="rollback", run_dir=run, listeners=[display], tensorboard=True,
        )  # fmt: skip
    assert (
        stream.getvalue().count("  note: the loss became inf at step") == record.facts["rollbacks"]
    )
    steps = [row["step"] for row in read_steps(run)]
    assert steps == sorted(set(steps))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    values = [(event.step, event.value) for event in events.Scalars("train/epoch_loss")]
    assert [step for step, _ in values] == record.history.column("step")
    assert [value for _, value in values] == pytest.approx(record.history.column("train/loss"))


def test_many_skipped_steps_are_told_now_and_then() -> None:
    seen: list[Any] = []
    made = line(loss=lambda o, t: o.square().mean() * (torch.inf if t[0] > 2 else 1), valid=None)
    record = ravine.train(
        made, "sgd(lr=0.1)", batch_size=1, epochs=70, nonfinite="skip", listeners=[seen.append]
    )
    told = [event for event in seen if isinstance(event, Recovered)]
    assert record.facts["skipped"] > 250
    assert len(told) == 10 + 5  # 16, 32, 64, 128, 256


def test_a_run_that_fails_in_its_first_step_leaves_nothing(tmp_path: Path) -> None:
    def wrong(output: Tensor, target: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ravine.train(line(loss=wrong), run_dir=tmp_path / "run", nonfinite="rollback")
    assert list(tmp_path.iterdir()) == []
