"""A run in several processes is the run of one: same losses, same weights, same resumed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import in_processes
from torch import Tensor, nn
from training_cases import Rows, numbers, points, task, weights

import ravine
from ravine.errors import Interrupted
from ravine.training.keeper import Keeper

OPTIMIZER = "adam(lr=warmup(3) >> cosine(9, peak=1e-1), average=0.9, clip_norm=1)"
SETTINGS: dict[str, Any] = {"batch_size": 7, "epochs": 3, "seed": 3, "regularize": ()}
Result = tuple[dict[str, Tensor], list[dict[str, Any]], dict[str, float]]


def made(dtype: torch.dtype = torch.float64) -> ravine.Task:
    """Batches of 7, the last one of 5: rows do not divide among processes, some have none."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    train, valid = ((X.to(dtype), y) for X, y in (points(), points(9, seed=1)))
    return task(model=net, train=train, valid=valid, test=valid)


def tokens() -> ravine.Task:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(23, 6, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (23, 6), generator=generator)
    y[:12, :5] = -100
    y[:4] = -100
    return task(model=made().model, train=(X, y), valid=(X, y), metrics=[])


def result(record: ravine.Record) -> Result:
    return weights(record.model), numbers(record.history), record.metrics


def run(make: Any, optimizer: Any, settings: dict[str, Any]) -> Result:
    torch.manual_seed(torch.distributed.get_rank() if torch.distributed.is_initialized() else 0)
    return result(ravine.train(make(), optimizer, **SETTINGS | settings))


def assert_same(found: Result, expected: Result, rel: float = 1e-10) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=rel, atol=rel / 100)
    for row, other in zip([*found[1], found[2]], [*expected[1], expected[2]], strict=True):
        assert row == pytest.approx(other, rel=rel, nan_ok=True)


def torchs(params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=0.01)


def one_layer() -> ravine.Task:
    return task(model=nn.Linear(4, 3).double(), train=made().train, valid=made().valid)


def rows_by_number() -> ravine.Task:
    one = made()
    return task(model=one.model, train=Rows(one.train), valid=Rows(one.valid))  # type: ignore[arg-type]


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "tensors": (made, OPTIMIZER, {}),
    "torch's optimizer": (made, torchs, {}),
    "tokens": (tokens, OPTIMIZER, {}),
    "passes": (tokens, OPTIMIZER, {"accumulate": 2}),
    "one layer": (one_layer, OPTIMIZER, {}),
    "dataset": (rows_by_number, OPTIMIZER, {}),
    "stopped": (made, "sgd(lr=0.1)", {"regularize": "early_stopping(patience=1)", "epochs": 9}),
    "recomputed": (made, OPTIMIZER, {"checkpoint_activations": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
@pytest.mark.parametrize("world", [2, 4])
def test_losses_and_weights_are_those_of_one_process(world: int, parallel: str) -> None:
    chosen = list(CASES) if world == 2 else ["tokens"]  # four processes share two cores
    found = in_processes(world, every_case, chosen, parallel)
    for name in chosen:
        expected = run(*CASES[name])
        for rank in range(world):
            assert_same(found[rank][name], expected)


def every_case(chosen: list[str], parallel: str) -> dict[str, Result]:
    cases = {name: CASES[name] for name in chosen}
    return {
        name: run(make, optimizer, settings | {"parallel": parallel})
        for name, (make, optimizer, settings) in cases.items()
    }


def test_float32_to_1e_6() -> None:
    (mine, _) = in_processes(2, in_float32)
    expected = in_float32()
    for row, other in zip(mine, expected, strict=True):
        assert row["train/loss"] == pytest.approx(other["train/loss"], rel=1e-6)
        assert row["valid/loss"] == pytest.approx(other["valid/loss"], rel=1e-6)


def in_float32() -> list[dict[str, Any]]:
    return ravine.train(made(torch.float32), OPTIMIZER, **SETTINGS).history


# Going on with another number of processes


def going_on(folder: Path, epochs: int, optimizer: Any, settings: dict[str, Any]) -> Result:
    where = {"resume": folder} if (folder / "config.json").exists() else {"run_dir": folder}
    torch.distributed.is_initialized() and torch.distributed.barrier()
    return run(made, optimizer, settings | where | {"epochs": epochs})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "turns"),
    [
        (OPTIMIZER, [(1, None), (2, "data"), (4, "data"), (1, None)]),
        (OPTIMIZER, [(1, None), (4, "sharded"), (2, "sharded"), (1, None), (3, "sharded")]),
        (torchs, [(2, "sharded"), (2, "data"), (4, "sharded")]),
    ],
    ids=["data", "sharded", "one way after the other, torch's optimizer"],
)
def test_each_number_of_processes_goes_on_from_another(
    optimizer: Any, turns: list[tuple[int, str | None]], tmp_path: Path
) -> None:
    """Also from what one process wrote, and with more of them than a weight has rows."""
    settings = {"regularize": "early_stopping(patience=9)"}
    expected = run(made, optimizer, settings | {"epochs": 2 * len(turns)})
    for turn, (world, parallel) in enumerate(turns, 1):
        if world == 1:
            found = [going_on(tmp_path, 2 * turn, optimizer, settings)]
        else:
            many = settings | {"parallel": parallel}
            found = in_processes(world, going_on, tmp_path, 2 * turn, optimizer, many)
    for result in found:
        assert_same(result, expected)


def interrupted(folder: Path, parallel: str) -> str:
    """End in the middle of an epoch, by a signal that one process alone has got."""
    after = Keeper.after_step

    def watched(self: Keeper) -> None:
        if self.loop.step == 8 and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        after(self)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Interrupted) as caught:
        patched.setattr(Keeper, "after_step", watched)
        run(made, OPTIMIZER, {"run_dir": folder, "parallel": parallel, "epochs": 200})
    return caught.value.signal


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_a_signal_to_one_process_ends_all_after_the_same_step(
    parallel: str, tmp_path: Path
) -> None:
    assert in_processes(2, interrupted, tmp_path, parallel) == ["SIGTERM"] * 2
    expected = run(made, OPTIMIZER, {"epochs": 200})
    assert_same(going_on(tmp_path, 200, OPTIMIZER, {}), expected)


def mine_and_theirs(folder: Path) -> list[Any]:
    """With dropout, whose masks differ between processes: the same number goes on to the same bits."""
    settings = {"regularize": "dropout(0.3)"}
    whole = run(made, OPTIMIZER, settings | {"epochs": 4})
    run(made, OPTIMIZER, settings | {"epochs": 2, "run_dir": folder})
    return [whole, run(made, OPTIMIZER, settings | {"epochs": 4, "resume": folder})]


def test_the_same_number_of_processes_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    first, second = in_processes(2, mine_and_theirs, tmp_path)
    for whole, resumed in (first, second):
        assert_same(resumed, whole, rel=0)
    assert not torch.equal(first[0][0]["1.1.stream"], second[0][0]["1.1.stream"])
    for weights_of in (first[0][0], second[0][0]):
        del weights_of["1.1.stream"]
    assert_same(second[0], first[0], rel=0)
