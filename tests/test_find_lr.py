"""The range test against problems whose answer is known, and its honest "can't tell"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import ravine
from ravine.errors import ArgumentError, NonFiniteError, RavineError, UndecidedError
from ravine.training.lr_suggestion import suggest
from ravine.training.range_test import Sweep

LRS = [1e-7 * 1e8 ** (k / 99) for k in range(100)]


def quadratic(curvature: float) -> Callable[[int], ravine.Task]:
    """A loss with the same curvature in every direction, in float64."""

    def task(seed: int) -> ravine.Task:
        torch.manual_seed(seed)
        directions, _ = torch.linalg.qr(torch.randn(64, 3, dtype=torch.float64))
        inputs = directions * math.sqrt(32 * curvature)  # mse: the Hessian is 2/64 X'X
        model = nn.Linear(3, 1, bias=False).double()
        return ravine.Task(
            model=model,
            loss="mse",
            train=(inputs, inputs @ torch.randn(3, 1, dtype=torch.float64)),
        )

    return task


def noise(seed: int) -> ravine.Task:
    """Targets that have nothing to do with the inputs, and a model that begins with their mean."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(8, 1)
    for weight in model.parameters():
        nn.init.zeros_(weight)
    inputs, targets = (torch.randn(6400, n, generator=generator) for n in (8, 1))
    return ravine.Task(model=model, loss="mse", train=(inputs, targets))


@pytest.mark.parametrize("curvature", [5.0, 300.0, 1e4])
def test_the_edge_of_a_quadratic_is_two_over_its_curvature(curvature: float) -> None:
    test = ravine.find_lr(quadratic(curvature), "gradient_descent", batch_size="all")
    assert test.suggestion.edge is not None
    assert 0.5 < test.suggestion.edge * curvature / 2 < 2
    assert test.lr < test.suggestion.edge
    assert all(sweep.diverged for sweep in test.sweeps)


def test_the_losses_are_those_of_the_closed_form() -> None:
    """One dimension: each step multiplies the distance by 1 - lr * curvature."""
    curvature = 10.0
    x = torch.full((8, 1), math.sqrt(curvature / 2), dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    task = ravine.Task(model=model, loss="mse", train=(x, torch.zeros_like(x)))
    test = ravine.find_lr(task, "gradient_descent", batch_size="all", seeds=1, stop=0.05)
    distance, expected = 1.0, []
    for lr in test.lrs:
        expected.append(curvature / 2 * distance**2)
        distance *= 1 - lr * curvature
    assert test.sweeps[0].losses == pytest.approx(expected, rel=1e-9)
    assert test.sweeps[0].starts == pytest.approx([curvature / 2] * 100, rel=1e-12)
    assert model.weight.item() == 1  # the task's own is left as it was


@pytest.mark.parametrize("first", [0, 3, 6])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_pure_noise_cannot_be_told(optimizer: str, first: int) -> None:
    test = ravine.find_lr(noise, optimizer, seeds=range(first, first + 3))
    assert not test.found
    assert "the loss never fell clearly" in test.suggestion.reason
    with pytest.raises(UndecidedError) as caught:
        test.lr
    assert "the range test cannot tell a learning rate" in str(caught.value)
    assert "the loss never fell clearly" in str(caught.value)
    assert f"task 'task', {optimizer}(" in str(caught.value)
    assert "can't tell" in repr(test)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stop": 1e-4}, "the loss was still falling at the largest learning rate, 0.0001: raise stop"),
        ({"start": 5e-2}, "lower start"),
        ({"start": 1.0, "stop": 10.0}, "the loss blew up within"),
    ],
)  # fmt: skip
def test_a_range_that_misses_is_told(options: dict[str, float], reason: str) -> None:
    test = ravine.find_lr(quadratic(10.0), "gradient_descent", batch_size="all", **options)
    assert not test.found
    assert reason in test.suggestion.reason


def test_a_loss_that_is_not_finite_ends_the_sweep() -> None:
    X = torch.linspace(-1, 1, 64)[:, None]

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((output - target) ** 2).mean() + torch.where(output.abs().max() > 2, math.nan, 0)

    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    task = ravine.Task(model=model, loss=loss, train=(X, X))
    test = ravine.find_lr(task, "gradient_descent")
    assert test.found
    assert all(sweep.diverged and len(sweep.losses) < 100 for sweep in test.sweeps)
    assert all(math.isfinite(value) for sweep in test.sweeps for value in sweep.losses)


def test_seeds_that_do_not_agree_are_told() -> None:
    def falling(at: int) -> Sweep:
        losses = [1 / (1 + math.exp((k - at) / 2)) for k in range(100)]
        return Sweep(at, losses, [1.0] * 100, diverged=False)

    agree = suggest(LRS, [falling(50), falling(55), falling(60)])
    assert agree.lr == pytest.approx(LRS[57], rel=0.3)
    other = suggest(LRS, [falling(30), falling(55), falling(60)])
    assert other.lr is None
    assert "the seeds do not agree: from" in other.reason


def test_a_seed_that_blew_up_does_not_decide_for_the_others() -> None:
    good = [
        Sweep(seed, [1 - 0.9 * (k > 60) for k in range(100)], [1.0] * 100, diverged=False)
        for seed in (0, 1)
    ]
    gone = Sweep(2, [1.0] * 62, [1.0] * 62, diverged=True)
    found = suggest(LRS, [*good, gone])
    assert len(found.changes) == 100
    assert found.lr == pytest.approx(LRS[61], rel=0.3)


def test_the_same_seeds_give_the_same_bits() -> None:
    one, two = (ravine.find_lr("wine", "sgd", seeds=[4, 7]) for _ in range(2))
    assert one.sweeps == two.sweeps
    assert [sweep.seed for sweep in one.sweeps] == [4, 7]
    assert one.sweeps[0].losses != one.sweeps[1].losses


def test_a_schedule_gives_way_to_the_sweep_and_dropout_is_set() -> None:
    plain = ravine.find_lr("wine", "sgd", seeds=1)
    scheduled = ravine.find_lr("wine", "sgd(lr=cosine(9, peak=1))", seeds=1)
    assert plain.sweeps == scheduled.sweeps
    own = {"seeds": 1, "steps": 20}
    dropped = ravine.find_lr("digits", "sgd", regularize=["dropout(0.2)"], **own)
    assert dropped.sweeps != ravine.find_lr("digits", "sgd", regularize=(), **own).sweeps
    assert dropped.config["regularize"] == ["dropout(0.2)"]


def test_groups_keep_their_ratio_and_torchs_optimizers_are_taken() -> None:
    seen: list[list[float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            seen.append([group["lr"] for group in self.param_groups])
            super().step()

    def make(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        return Watched([{"params": weights[:1], "lr": 2.0}, {"params": weights[1:], "lr": 1.0}])

    test = ravine.find_lr("diabetes", make, seeds=1)
    assert [pair[0] for pair in seen] == pytest.approx(test.lrs[: len(seen)])
    assert all(one == pytest.approx(2 * two) for one, two in seen)


def test_the_record_is_plain() -> None:
    from ravine.report import to_strict_json

    record = ravine.find_lr("wine", seeds=1).to_json()
    assert record["kind"] == "lr-find"
    assert record["found"] is True
    assert record["config"]["seeds"] == [0]
    assert len(record["lrs"]) == 100
    assert to_strict_json(record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds cannot be used"),
        ({"seeds": [1, 1]}, "different seeds"),
        ({"steps": 5}, "an integer >= 20"),
        ({"start": 0.0}, "0 < start < stop"),
        ({"stop": math.inf}, "both finite"),
        ({"start": 1.0, "stop": 0.1}, "start=1.0, stop=0.1"),
        ({"optimizer": "adm"}, "did you mean 'adam'?"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RavineError) as caught:
        ravine.find_lr("wine", **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, (ArgumentError, ValueError))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam(lr={})", "sgd(lr={}, momentum=0.9)"])
@pytest.mark.parametrize("task", ["digits", "diabetes", "wine"])
def test_the_suggestion_is_not_worse_than_both_neighbours(task: str, optimizer: str) -> None:
    def reached(lr: float) -> float:
        try:
            record = ravine.train(task, optimizer.format(lr), epochs=10, regularize=())
        except NonFiniteError:
            return math.inf
        return record.metrics["train/loss"]

    lr = ravine.find_lr(task, optimizer.format(1), regularize=()).lr
    below, at, above = (reached(lr * factor) for factor in (0.1, 1, 10))
    assert at < max(below, above)
    if task != "wine":  # separable: the training loss falls with whatever moves faster
        assert at < 1.1 * min(below, above)


def test_a_loss_that_only_rises_has_no_suggestion() -> None:
    rising = [Sweep(s, [1.0 + k / 50 for k in range(100)], [0.9] * 100, False) for s in range(3)]
    found = suggest(LRS, rising)
    assert (found.lr, found.edge) == (None, None)
    assert "never fell clearly" in found.reason
    nothing = suggest(LRS, [Sweep(0, [], [], diverged=True)])
    assert "the loss blew up within 0 steps" in nothing.reason
