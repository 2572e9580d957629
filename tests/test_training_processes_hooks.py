"""Several processes: hooks in all of them, what is said before a run, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import in_processes
from test_training_processes import OPTIMIZER, SETTINGS, assert_same, made, run
from torch import nn
from training_cases import points, task

import ravine
from ravine.errors import ArgumentError

Seen = list[tuple[int, int, float, float]]


def watched(**way: Any) -> tuple[Seen, list[dict[str, Any]], list[str]]:
    """Return what hooks saw of a run, its history, and the notes it began with."""
    seen: Seen = []
    notes: list[str] = []

    def on_step(state: Any) -> None:
        norm = state.gradient_norm()
        seen.append((state.step, len(state.inputs), state.loss, norm))

    def on_epoch(row: Any, state: Any) -> None:
        if _rank() == 0:
            state.log("epoch squared", row["epoch"] ** 2)

    def listen(event: Any) -> None:
        notes.extend(getattr(event, "notes", ()))

    record = ravine.train(
        made(), OPTIMIZER, **SETTINGS, **way, on_step=on_step, on_epoch=on_epoch, listeners=[listen]
    )
    return seen, list(record.history), notes


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def test_a_step_in_passes_is_told_as_the_whole_batch() -> None:
    one, other = watched()[0], watched(accumulate=3)[0]
    assert [seen[:2] for seen in one] == [seen[:2] for seen in other]
    assert one[0][1] == SETTINGS["batch_size"]
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_hooks_are_called_in_every_process_with_the_whole_batch(parallel: str) -> None:
    expected, history, _ = watched()
    found = in_processes(2, with_hooks, parallel)
    for seen, rows, _ in found:
        for mine, theirs in zip(seen, expected, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-10)
        assert len(rows) == len(history)
    assert [row["epoch squared"] for row in found[0][1]] == [1, 4, 9]


def with_hooks(parallel: str) -> Any:
    return watched(parallel=parallel)


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_step", "on_epoch"])
@pytest.mark.parametrize("decides", [0, 1])
def test_one_process_that_stops_stops_all(hook: str, decides: int) -> None:
    found = in_processes(2, stopped, hook, decides)
    steps, messages = zip(*found, strict=True)
    assert set(steps) == {8 if hook == "on_step" else 12}
    assert messages[decides] == "enough"
    assert messages[1 - decides] == "a hook of another process stopped the run"


def stopped(hook: str, decides: int) -> tuple[int, str]:
    def stop(*arguments: Any) -> None:
        state = arguments[-1]
        if _rank() == decides and state.step >= 8:
            state.stop("enough")

    record = ravine.train(made(), "sgd(lr=0.1)", **SETTINGS, **{hook: stop})
    assert record.status == "stopped early"
    return record.facts["steps"], record.message


# What is said before the run


def with_norm(parallel: str | None = None, **way: Any) -> list[str]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    notes: list[str] = []

    def listen(event: Any) -> None:
        notes.extend(getattr(event, "notes", ()))

    settings = {"batch_size": 10, "epochs": 1, "regularize": (), "parallel": parallel, **way}
    ravine.train(task(model=net), "sgd(lr=0.1)", listeners=[listen], **settings)
    return notes


def test_batch_norm_in_passes_is_noted() -> None:
    assert with_norm() == []
    (note,) = with_norm(accumulate=3)
    assert note == (
        "batch norm (1) takes mean and variance of 4 rows at a time, not of the 10 of a batch, "
        "which 3 passes share: losses are not those of one process with whole batches; "
        "GroupNorm and LayerNorm do not differ"
    )


@pytest.mark.slow
def test_batch_norm_in_processes_is_noted() -> None:
    first, second = in_processes(2, norms)
    assert "5 rows at a time, not of the 10 of a batch, which 2 processes share" in first[0][0]
    assert (
        "3 rows at a time, not of the 10 of a batch, which 2 passes of 2 processes" in first[1][0]
    )
    assert first[2] == []  # layer norm: there is nothing to be said
    assert second == [[], [], []]  # the first process tells


def norms() -> list[list[str]]:
    plain = watched(parallel="data")[2]
    return [with_norm("data"), with_norm("data", accumulate=2), plain]


@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_parallel_in_one_process_is_noted(parallel: str) -> None:
    (note,) = with_norm(parallel)
    assert note == (
        f"parallel='{parallel}' has no effect: there is one process; "
        "torchrun --nproc-per-node starts several"
    )


# Regularisers on weights that are divided


@pytest.mark.slow
def test_regularisers_on_sharded_weights_are_right_or_refused() -> None:
    (found, _) = in_processes(2, sharded)
    for name in ("max_norm(0.5)", "mixup(0.3)", "ema(0.9)"):
        assert_same(found[name], run(made, "sgd(lr=0.1)", {"regularize": name}))
    for name, part in (("sam(0.05)", "SharpnessAware"), ("swa(start=0.5)", "StochasticWeight")):
        assert found[name].startswith("a regulariser does not work on weights that are divided")
        assert part in found[name]
        assert "parallel='sharded' in 2 processes" in found[name]
        assert "use parallel='data', where every process has whole weights" in found[name]
    assert "max_norm cannot limit units that are divided over processes" in found["transposed"]
    assert "use parallel='data', or leave max_norm out" in found["transposed"]


def sharded() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("max_norm(0.5)", "mixup(0.3)", "ema(0.9)", "sam(0.05)", "swa(start=0.5)"):
        settings = {"regularize": name, "parallel": "sharded"}
        try:
            found[name] = run(made, "sgd(lr=0.1)", settings)
        except ArgumentError as error:
            found[name] = str(error)
    net = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.ConvTranspose1d(2, 3, 1), nn.Flatten())
    one = task(model=nn.Sequential(net, nn.Linear(6, 3)), train=points(), valid=None)
    try:
        ravine.train(one, "sgd(lr=0.1)", regularize="max_norm(1)", parallel="sharded", epochs=1)
    except ArgumentError as error:
        found["transposed"] = str(error)
    return found
