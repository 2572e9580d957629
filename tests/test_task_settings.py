"""What a task says of its own training: refused if it cannot be used, taken where nothing is said."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from task_cases import make
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset
from training_cases import line, mlp, numbers, points, same, task, weights

import ravine
from ravine.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ResumeError,
    TaskError,
    UnknownNameError,
)

MADE = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
LOADER = DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4, 1)), batch_size=2)
STEP_LR = partial(StepLR, step_size=2)

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "optimizer made": ({"optimizer": MADE}, "optimizer is neither", "SGD, made already"),
    "optimizer number": ({"optimizer": 0.1}, "optimizer is neither", "lambda params"),
    "optimizer blank": ({"optimizer": " "}, "optimizer is neither", "adam(lr=1e-3)"),
    "scheduler made": ({"scheduler": StepLR(MADE, 2)}, "scheduler is not", "StepLR, made already"),
    "scheduler text": ({"scheduler": "cosine"}, "scheduler is not a function", "'cosine'"),
    "interval alone": ({"scheduler_interval": "step"}, "no scheduler to step", "leave"),
    "epochs": ({"epochs": 1.0}, "epochs is not a count", "1.0"),
    "batch": ({"batch_size": "some"}, "batch_size is not a count", "'all'"),
    "batch twice": ({"batch_size": 2, "train": LOADER}, "given twice", "DataLoader"),
}


@pytest.mark.parametrize(("changes", "what", "detail"), WRONG.values(), ids=WRONG)
def test_a_setting_that_cannot_be_used_is_refused(
    changes: dict[str, Any], what: str, detail: str
) -> None:
    with pytest.raises(TaskError) as caught:
        make(**changes)
    assert what in caught.value.what
    assert detail in str(caught.value)


def test_an_unknown_interval_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'epoch'"):
        make(scheduler=STEP_LR, scheduler_interval="epochs")


def test_an_argument_wins_over_the_task() -> None:
    made = task(optimizer=partial(Adam, lr=0.1), epochs=3, batch_size=7)
    own = ravine.train(made)
    assert own.config["optimizer"] == "Adam(lr=0.1)"
    assert (own.config["batch_size"], own.config["epochs"]) == (7, 3)
    said = ravine.train(made, "sgd(lr=0.5)", batch_size=8, epochs=1)
    assert said.config["optimizer"] == "sgd(lr=0.5)"
    assert (said.config["batch_size"], said.config["epochs"]) == (8, 1)


def every_step(function: Any, **options: Any) -> dict[str, Any]:
    return {"scheduler": partial(function, **options), "scheduler_interval": "step"}


def halves(optimizer: Any) -> Any:
    return SequentialLR(
        optimizer, [LambdaLR(optimizer, lambda k: k + 1), StepLR(optimizer, 1)], milestones=[2]
    )


SCHEDULERS: dict[str, dict[str, Any]] = {
    "epoch": {"scheduler": STEP_LR},
    "cosine": {"scheduler": partial(CosineAnnealingLR, T_max=4)},
    "milestones": {"scheduler": partial(MultiStepLR, milestones=[1, 3])},
    "sequence": {"scheduler": halves},
    "plateau": {"scheduler": partial(ReduceLROnPlateau, patience=0, threshold=0.5)},
    "one cycle": every_step(OneCycleLR, max_lr=0.2, total_steps=25),
    "plateau, steps": every_step(ReduceLROnPlateau, patience=0, threshold=0.5),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("valid", [True, False], ids=["validated", "not validated"])
def test_the_scheduler_acts_as_in_a_loop_by_hand(name: str, valid: bool) -> None:
    changes = SCHEDULERS[name]
    made = task(
        optimizer=partial(SGD, lr=0.1, momentum=0.9),
        loss=nn.CrossEntropyLoss(),
        train=DataLoader(TensorDataset(*points()), batch_size=8),
        valid=points(20, seed=1) if valid else None,
        epochs=5,
        **changes,
    )
    record = ravine.train(made)
    model, (X, y), held = made.model, points(), points(20, seed=1)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = changes["scheduler"](optimizer)
    by_step = "scheduler_interval" in changes
    expected = []
    for _ in range(5):
        total = 0.0
        for rows in torch.arange(40).split(8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * 8 / 40
            used = optimizer.param_groups[0]["lr"]
            if by_step:
                scheduler.step(*[loss.item()] * ("plateau" in name))
        expected.append(used)
        with torch.no_grad():
            heard = float(nn.functional.cross_entropy(model(held[0]), held[1])) if valid else total
        if not by_step:
            scheduler.step(*[heard] * ("plateau" in name))
    assert record.history.column("lr") == pytest.approx(expected, rel=1e-12)
    assert len(set(expected)) > 1
    for weight, known in zip(record.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(weight, known, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("stop", [8, 10], ids=["in an epoch", "between epochs"])
def test_a_resumed_run_goes_on_with_the_scheduler(name: str, stop: int, tmp_path: Path) -> None:
    class Halting(nn.CrossEntropyLoss):
        left = stop

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            return super().forward(input, target)

    def made(loss: Any) -> ravine.Task:
        return task(
            optimizer=partial(SGD, lr=0.1, momentum=0.9),
            epochs=5,
            batch_size=8,
            loss=loss,
            **SCHEDULERS[name],
        )

    Halting.__qualname__ = "CrossEntropyLoss"
    with pytest.raises(KeyboardInterrupt):
        ravine.train(made(Halting()), run_dir=tmp_path / "run", checkpoint_every=1)
    Halting.left = 100
    whole = ravine.train(made(Halting()))
    resumed = ravine.train(made(Halting()), resume=tmp_path / "run")
    assert numbers(resumed.history) == numbers(whole.history)
    assert same(weights(resumed.model), weights(whole.model))


def test_a_scheduler_and_a_schedule_are_refused() -> None:
    made = task(scheduler=STEP_LR, optimizer="sgd(lr=cosine(100, peak=0.1))")
    with pytest.raises(ArgumentError, match="set by two") as caught:
        ravine.train(made)
    assert "cosine" in str(caught.value)
    assert ravine.train(made, "sgd(lr=0.1)", epochs=3).history.column("lr") == pytest.approx(
        [0.1, 0.1, 0.01]
    )


@pytest.mark.parametrize("made", [lambda o: None, lambda o: o, lambda o: 0.1])
def test_a_function_that_returns_no_scheduler_is_refused(made: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="did not return a scheduler"):
        ravine.train(task(scheduler=made))


class Bare:
    """The least that a scheduler can be."""

    def __init__(self, optimizer: Any) -> None:
        self.group = optimizer.param_groups[0]

    def step(self) -> None:
        self.group["lr"] /= 2


def test_a_scheduler_without_state_trains_and_is_refused_where_runs_are_kept(
    tmp_path: Path,
) -> None:
    made = task(scheduler=Bare, optimizer="sgd(lr=0.4)", epochs=3)
    assert ravine.train(made).history.column("lr") == pytest.approx([0.4, 0.2, 0.1])
    with pytest.raises(CheckpointError, match="Bare without state_dict"):
        ravine.train(made, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_lr_is_refused_where_a_scheduler_goes_on(tmp_path: Path) -> None:
    made = line(scheduler=STEP_LR, optimizer="sgd(lr=0.1)", epochs=1)
    record = ravine.train(made, run_dir=tmp_path / "run")
    assert record.config["scheduler"] == "StepLR(step_size=2), every epoch"
    with pytest.raises(ResumeError, match="goes on from the one it began with"):
        ravine.train(made, "sgd(lr=0.2)", resume=tmp_path / "run", epochs=2)


def test_an_optimizer_that_clears_nothing_trains_as_it_does_in_a_loop_by_hand() -> None:
    class Keeps(SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:
            pass

    made = line(optimizer=partial(Keeps, lr=0.01), epochs=4, batch_size="all")
    record = ravine.train(made)
    optimizer = SGD(made.model.parameters(), lr=0.01)
    for _ in range(4):
        nn.functional.mse_loss(made.model(made.train[0]), made.train[1]).backward()
        optimizer.step()
    assert torch.allclose(record.model.weight, made.model.weight, rtol=1e-12)


def test_inputs_are_trained_on_as_they_are() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()
            self.seen: set[Any] = set()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add((x.dtype, x.shape[1:], int(x.max())))
            return self.inner(x.flatten(1).float() / 255)

    pixels = torch.full((12, 2, 1, 2), 255, dtype=torch.uint8)
    made = task(
        model=Flat(), train=(pixels, torch.arange(12) % 3), valid=None, batch_size="all", epochs=1
    )
    record = ravine.train(made)
    assert record.model.seen == {(torch.uint8, (2, 1, 2), 255)}
