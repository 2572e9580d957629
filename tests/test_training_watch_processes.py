"""The watch where several processes train, or torch compiles, or the precision is half: no bit changes."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
import torch
from ranks import in_processes
from test_training_processes import SETTINGS, made
from torch import nn
from torch._dynamo.testing import CompileCounter
from training_cases import points, weights
from training_cases import task as points_task

import ravine
from ravine.training.events import Found
from ravine.watch import FindingWarning, Watch


def both(optimizer: str, parallel: str, changes: dict[str, Any]) -> Any:
    """Train watched and not; return the weights of both, and what was told and warned here."""
    events: list[Any] = []
    found = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", FindingWarning)
        for watch in (True, False):
            record = ravine.train(
                made(torch.float32), optimizer, **SETTINGS | changes, parallel=parallel,
                watch=watch, listeners=[events.append],
            )  # fmt: skip
            found.append((weights(record.model), [f.name for f in record.findings]))
    said = [event for event in events if isinstance(event, Found)]
    return found, len(said), sum(w.category is FindingWarning for w in warned)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_only_the_first_process_looks_and_tells(parallel: str) -> None:
    first, other = in_processes(2, both, "sgd(lr=1e4)", parallel, {"epochs": 1})
    for found, _, _ in (first, other):
        (watched, _), (plain, nothing) = found
        assert nothing == []
        torch.testing.assert_close(watched, plain, rtol=0, atol=0)
    assert first[0][0][1][:1] == ["lr-too-high"]
    assert first[1:] == (1, 1)
    assert other[0][0][1] == []
    assert other[1:] == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_a_healthy_run_of_two_processes_has_no_finding(parallel: str) -> None:
    for found, told, warned in in_processes(2, both, "adam(lr=0.01)", parallel, {"epochs": 9}):
        assert [names for _, names in found] == [[], []]
        assert (told, warned) == (0, 0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("own", [True, False], ids=["ours", "torch's"])
def test_scaled_gradients_are_seen_without_their_scale(precision: str, own: bool) -> None:
    """And the steps that a scaler leaves out to find its scale are no finding."""

    def train(precision: str) -> tuple[float, list[str]]:
        norms: list[float] = []
        optimizer: Any = "sgd(lr=0.01)" if own else lambda params: torch.optim.SGD(params, lr=0.01)
        record = ravine.train(
            points_task(), optimizer, epochs=3, precision=precision, regularize=(),
            on_step=lambda state: norms.extend(
                seen.gradient_norm for seen in state._loop.current_step.watch.history[-1:]
            ),
        )  # fmt: skip
        return norms[0], [f.name for f in record.findings]

    norm, names = train(precision)
    assert norm == pytest.approx(train("float32")[0], rel=0.05)
    assert names == []


def test_a_compiled_model_is_not_compiled_anew_for_a_look() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    model = torch.compile(points_task().model, backend=counter)
    X, y = points()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(model, optimizer, every=2) as w:
        for _ in range(9):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), y).backward()
            optimizer.step()
    assert counter.frame_count == 1
    assert len(w.history) == 6
    assert w.history[-1].dead == {}


def test_a_model_can_be_pickled_while_it_is_looked_at() -> None:
    model = points_task().model
    X, _ = points()
    with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        copy = pickle.loads(pickle.dumps(model))
        assert torch.equal(copy(X), model(X))
