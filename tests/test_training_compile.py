"""torch.compile and activation checkpointing change how a step is computed, not what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_cases import line, numbers, same, task, weights

import ravine
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.training.devices.recomputing import recompute, undo

SETTINGS: dict[str, Any] = {"batch_size": 16, "epochs": 3, "seed": 3}


class Norms(nn.Module):
    """A block with everything that a second forward pass could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.layers = nn.Sequential(
            nn.Linear(8, 8),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.Dropout(0.2),
            ravine.regularize.Dropout(0.3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        found: torch.Tensor = x + self.layers(x)
        return found


def deep() -> ravine.Task:
    torch.manual_seed(0)
    return task(model=nn.Sequential(nn.Linear(4, 8), Norms(), Norms(), nn.Linear(8, 3)))


def test_computed_again_is_the_same_to_the_bit() -> None:
    plain = ravine.train(deep(), **SETTINGS)
    again = ravine.train(deep(), checkpoint_activations=True, **SETTINGS)
    assert same(weights(again.model), weights(plain.model))  # statistics and counters included
    assert numbers(again.history) == numbers(plain.history)
    training, looking = 3 * 3, 3 * 1
    assert [plain.model[k].calls for k in (1, 2)] == [training + looking] * 2
    assert [again.model[k].calls for k in (1, 2)] == [2 * training + looking] * 2
    assert not any("forward" in vars(module) for module in again.model.modules())


def test_what_is_inside_of_blocks_is_computed_again_and_undone() -> None:
    calls: list[int] = []

    class Watched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return x.tanh()

    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), Watched()) for _ in range(3)))

    def counted() -> int:
        calls.clear()
        model(torch.ones(4, 8)).sum().backward()
        return len(calls)

    assert recompute(model) == 3
    assert counted() == 6
    undo(model)
    assert counted() == 3


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Linear without a list(.|\n)*nn.Sequential"):
        ravine.train(line(), checkpoint_activations=True)


@pytest.mark.parametrize("name", ["compile", "checkpoint_activations"])
def test_a_flag_is_true_or_false(name: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"{name} cannot be used"):
        ravine.train(task(), **{name: 1})


@pytest.mark.slow
def test_a_compiled_model_has_the_same_numbers_names_and_checkpoints(tmp_path: Path) -> None:
    plain = ravine.train(task(), epochs=3, batch_size=16)
    made = task()
    ravine.train(made, epochs=2, batch_size=16, compile=True, run_dir=tmp_path)
    resumed = ravine.train(made, resume=tmp_path, epochs=3)
    assert resumed.config["compile"] is True
    found, expected = weights(resumed.model), weights(plain.model)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    switched = ravine.train(made, resume=tmp_path, epochs=4, compile=False)
    assert len(switched.history) == 4
    assert made.model._compiled_call_impl is None
