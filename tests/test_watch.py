"""Watching a loop: what is measured, what is found, and that healthy loops are left in peace."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_cases import points

import ravine
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.watch.finding import FindingWarning
from ravine.watch.layers import Layers
from ravine.watch.seen import Units
from ravine.watch.watcher import Watch

Loop = Callable[[nn.Module, torch.optim.Optimizer], None]


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), activation(), nn.Linear(16, 3))


def loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int = 120,
    *,
    before: Callable[[], None] | None = None,
    scale: float = 1.0,
    after_backward: Callable[[int], None] | None = None,
) -> None:
    X, y = points(64)
    for step in range(1, steps + 1):
        (before or optimizer.zero_grad)()
        F.cross_entropy(model(scale * X), y).backward()
        if after_backward is not None:
            after_backward(step)
        optimizer.step()


def watched(model: nn.Module, optimizer: Any, run: Callable[[], None], **options: Any) -> Watch:
    with warnings.catch_warnings(), Watch(model, optimizer, every=4, **options) as w:
        warnings.simplefilter("ignore", FindingWarning)
        run()
    return w


HEALTHY: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    "ours": lambda m: ravine.optim.AdamW(m.parameters(), lr=0.01, clip_norm=1.0),
    "warm-up from 0": lambda m: ravine.optim.SGD(
        m.parameters(), lr=ravine.schedules.linear(50, start=0.0, end=0.1)
    ),
    "lr 0 at rest": lambda m: torch.optim.SGD(m.parameters(), lr=0.0),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_a_healthy_loop_gives_nothing(name: str, activation: type[nn.Module]) -> None:
    model = mlp(activation)
    optimizer = HEALTHY[name](model)
    w = watched(model, optimizer, lambda: loop(model, optimizer))
    assert w.findings == []
    assert [seen.step for seen in w.history[:5]] == [1, 2, 3, 5, 9]


def test_clipping_by_hand_and_accumulation_are_no_fault() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def clipped(step: int) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    assert (
        watched(model, optimizer, lambda: loop(model, optimizer, after_backward=clipped)).findings
        == []
    )
    X, y = points(64)

    def accumulate() -> None:
        for _ in range(40):
            optimizer.zero_grad()
            for k in range(4):
                F.cross_entropy(model(X[k::4]), y[k::4]).backward()
            optimizer.step()

    assert watched(model, optimizer, accumulate).findings == []


def test_the_numbers_are_those_of_a_plain_computation() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    norms, ratios = [], []

    def note(step: int) -> None:
        square = sum(float(p.grad.double().square().sum()) for p in model.parameters())
        weight = sum(float(p.detach().double().square().sum()) for p in model.parameters())
        norms.append(math.sqrt(square))
        ratios.append(0.25 * math.sqrt(square / weight))

    w = watched(model, optimizer, lambda: loop(model, optimizer, 3, after_backward=note))
    assert [seen.gradient_norm for seen in w.history] == pytest.approx(norms, rel=1e-5)
    assert [seen.update_ratio for seen in w.history] == pytest.approx(ratios, rel=1e-4)


def test_missing_zero_grad_is_found() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    w = watched(model, optimizer, lambda: loop(model, optimizer, before=lambda: None))
    assert [f.name for f in w.findings] == ["missing-zero-grad"]


def test_a_step_without_effect_is_found() -> None:
    model, other = mlp(), mlp()
    held = [nn.Parameter(p.detach().clone()) for p in other.parameters()]
    optimizer = torch.optim.SGD(held, lr=0.1)

    def run() -> None:
        X, y = points(64)
        for _ in range(20):
            F.cross_entropy(model(X), y).backward()
            for weight in held:
                weight.grad = torch.ones_like(weight)
            with torch.no_grad():
                kept = [weight.clone() for weight in held]
            optimizer.step()
            with torch.no_grad():
                for weight, old in zip(held, kept, strict=True):
                    weight.copy_(old)

    w = watched(model, optimizer, run)
    assert [f.name for f in w.findings] == ["optimizer-misses-parameters"]

    class Idle(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            """Forget to do anything."""

    idle = Idle(model.parameters(), lr=0.1)
    assert [f.name for f in watched(model, idle, lambda: loop(model, idle)).findings] == [
        "step-has-no-effect"
    ]


def test_a_gradient_that_is_not_finite_is_named() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def poison(step: int) -> None:
        if step == 5:
            model[2].weight.grad[0, 0] = float("nan")

    w = watched(model, optimizer, lambda: loop(model, optimizer, 5, after_backward=poison))
    assert [(f.name, f.where, f.steps) for f in w.findings] == [("non-finite", "2.weight", (5, 5))]


def test_dead_units_are_found_and_living_ones_are_not() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].bias[:13] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    w = watched(model, optimizer, lambda: loop(model, optimizer))
    assert [(f.name, f.where) for f in w.findings] == [("dead-units", "1")]
    assert w.findings[0].evidence["share"] == 13 / 16


def test_saturated_units_are_found() -> None:
    model = mlp(nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    w = watched(model, optimizer, lambda: loop(model, optimizer, scale=1000.0))
    assert [(f.name, f.where) for f in w.findings] == [("saturated-units", "1")]


def test_exploding_gradients_are_found() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def grow(step: int) -> None:
        if step > 80:
            for weight in model.parameters():
                weight.grad *= 1e6

    w = watched(model, optimizer, lambda: loop(model, optimizer, after_backward=grow))
    assert [f.name for f in w.findings] == ["exploding-gradient"]


def test_a_finding_is_a_warning_with_its_code_once() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with (
        pytest.warns(
            FindingWarning, match=r"GRAD-KEPT missing-zero-grad: .* \(ravine explain"
        ) as said,
        ravine.watch(model, optimizer, every=2),
    ):
        loop(model, optimizer, before=lambda: None)
    assert len(said) == 1


def test_nothing_is_left_behind_and_nothing_is_changed() -> None:
    one, other = mlp(), mlp()
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (one, other)]
    watched(one, optimizers[0], lambda: loop(one, optimizers[0]))
    loop(other, optimizers[1])
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not any(m._forward_hooks for m in one.modules())
    assert not optimizers[0]._optimizer_step_pre_hooks
    assert not optimizers[0]._optimizer_step_post_hooks
    assert not any(p._backward_hooks for p in one.parameters())


def test_a_unit_is_dead_only_if_no_row_of_any_batch_wakes_it() -> None:
    units = Units()
    units.add(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    units.add(torch.tensor([[2.0, 0.0, 0.0]]))
    assert (units.dead, units.rows) == (1 / 3, 3)
    images = Units()
    images.add(torch.zeros(2, 4, 3, 3).index_fill_(1, torch.tensor([1]), 1.0))
    assert images.dead == 3 / 4
    layers = Layers(nn.ReLU())
    for output, share in (
        (torch.ones(2, 3), 0.0),
        (-torch.ones(2, 3), 0.0),
        (-torch.ones(1, 4), 1.0),
    ):
        layers.see("relu", nn.ReLU(), (), output)
        assert layers.dead() == {"relu": share}
    assert layers.rows == 5


def test_several_optimizers_are_one_step() -> None:
    model = mlp()
    pair = [
        torch.optim.SGD(model[0].parameters(), lr=0.1),
        torch.optim.SGD(model[2].parameters(), lr=0.1),
    ]
    X, y = points(64)

    def run() -> None:
        for _ in range(10):
            model.zero_grad()
            F.cross_entropy(model(X), y).backward()
            for optimizer in pair:
                optimizer.step()

    w = watched(model, pair, run)
    assert w.findings == []
    assert w.history[-1].step == 9


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("model", torch.optim.SGD([Tensor([1.0])], lr=1)), ArgumentTypeError, "str"),
        ((nn.Linear(1, 1), ["adam"]), ArgumentTypeError, "not an optimizer"),
        ((nn.Linear(1, 1), []), ArgumentTypeError, "no optimizer"),
    ],
    ids=["model", "optimizer", "none"],
)
def test_wrong_arguments(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Watch(*arguments)
    with pytest.raises(ArgumentError, match="every"):
        Watch(nn.Linear(1, 1), torch.optim.SGD([Tensor([1.0])], lr=1), every=0)
