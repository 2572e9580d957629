"""Every source of data: each row once an epoch, any batch without those before it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from data_cases import ROWS, SEQUENCES, SOURCES, epoch, equal, numbers, rows_in
from test_training_resume import OPTIMIZER, SETTINGS, broken_off, check
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ravine
from ravine.data import Source, Windowed, epoch_order, mixed
from ravine.errors import ArgumentError
from ravine.training.batches import evaluation_batches, training_batches

CPU = torch.device("cpu")
ALL = SOURCES | SEQUENCES


@pytest.mark.parametrize("size", [1, 7, 10, 40, 1000])
@pytest.mark.parametrize("kind", SOURCES)
def test_every_epoch_has_each_row_once_in_an_order_of_its_own(
    kind: str, size: int, tmp_path: Path
) -> None:
    X, y = (torch.from_numpy(part) for part in numbers())
    source = SOURCES[kind](tmp_path)
    assert len(source) == ROWS
    assert rows_in(epoch(source, size, None, 1)) == list(range(ROWS))
    orders = []
    for seed, number in [(0, 1), (0, 2), (1, 1)]:
        batches = epoch(source, size, seed, number)
        assert [len(x) for x, _ in batches] == [size] * (ROWS // size) + [ROWS % size] * bool(
            ROWS % size
        )
        inputs, targets = (torch.cat(part) for part in zip(*batches, strict=True))
        assert inputs.dtype == X.dtype
        assert targets.dtype == y.dtype
        assert torch.equal(inputs, X[targets])
        assert sorted(targets.tolist()) == list(range(ROWS))
        orders.append(tuple(targets.tolist()))
    assert len({*orders, tuple(range(ROWS))}) == 4


@pytest.mark.parametrize("size", [1, 7, 10, 64])
@pytest.mark.parametrize("kind", ALL)
def test_an_epoch_goes_on_at_any_batch(kind: str, size: int, tmp_path: Path) -> None:
    source = ALL[kind](tmp_path)
    for seed in (0, None):
        whole = epoch(source, size, seed, 2)
        for skip in range(0, len(whole) + 1, 1 if size > 1 else 13):
            assert equal(epoch(source, size, seed, 2, skip), whole[skip:])


@pytest.mark.parametrize("kind", ALL)
def test_the_batches_of_training_are_those_of_the_source(kind: str, tmp_path: Path) -> None:
    source = ALL[kind](tmp_path)
    batches = training_batches(source, 8, CPU, 3)
    assert (batches.rows, batches.steps, batches.size) == (len(source), -(-len(source) // 8), 8)
    before = torch.random.get_rng_state()
    assert equal(list(batches.epoch(2, 3)), epoch(source, 8, 3, 2, 3))
    assert equal(list(evaluation_batches(source, CPU, 8).epoch(1)), epoch(source, 64, None, 1))
    whole = list(training_batches(source, "all", CPU, 3).epoch(1))
    assert equal(whole, epoch(source, len(source), None, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ArgumentError, match="ends before the batch"):
        batches.epoch(1, batches.steps + 1)


def test_another_process_has_the_same_order(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from data_cases import SOURCES, epoch, rows_in\n"
        "for kind in sorted(SOURCES):\n"
        "    print(*rows_in(epoch(SOURCES[kind](Path(sys.argv[1])), 7, 5, 3, 2)))\n"
    )
    done = programs.run(["-c", code, str(tmp_path)], check=True)
    for kind, line in zip(sorted(SOURCES), done.stdout.splitlines(), strict=True):
        rows = rows_in(epoch(SOURCES[kind](tmp_path), 7, 5, 3, 2))
        assert line.split() == [str(row) for row in rows]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_task_trains_on_it(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)

    def loss(output: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return (output[:, 0] / 300 - row / 100).square().mean()

    task = ravine.Task(model=nn.Linear(3, 1), loss=loss, train=source, valid=source)
    record = ravine.train(task, "sgd(lr=1e-3)", batch_size=16, epochs=2)
    again = ravine.train(task, "sgd(lr=1e-3)", batch_size=16, epochs=2)
    assert record.facts["train_samples"] == ROWS
    assert record.facts["steps"] == 14
    assert record.metrics == again.metrics
    assert f"train {ROWS}" in repr(task)


# The order


def test_seeds_are_apart() -> None:
    seen = [tuple(mixed(seed, number)) for seed in range(40) for number in range(40)]
    assert len({word for words in seen for word in words}) == 4 * len(seen)
    assert mixed(3, 1) != mixed(3, 1, 0) != mixed(0, 3, 1)


def test_a_window_mixes_its_own_blocks_alone() -> None:
    sizes = [10] * 20
    windows = list(Windowed(sizes, 35).epoch(0, 1))
    assert [len(window.blocks) for window in windows] == [4] * 5
    blocks = [block for window in windows for block in window.blocks]
    assert sorted(blocks) == list(range(20))
    assert blocks != list(range(20))
    assert blocks == epoch_order(20, 0, 1).tolist()
    for window in windows:
        assert sorted(window.order.tolist()) == list(range(40))
        assert window.order.tolist() != list(range(40))
    assert len({tuple(window.order.tolist()) for window in windows}) == 5


def test_a_window_of_all_rows_gives_every_permutation() -> None:
    source = Windowed([1, 2], 3)
    seen = set()
    for number in range(1, 200):
        (window,) = source.epoch(0, number)
        rows = [row for block in window.blocks for row in ([0], [1, 2])[block]]
        seen.add(tuple(rows[place] for place in window.order.tolist()))
    assert len(seen) == 6


def test_a_source_of_ones_own_needs_two_methods(tmp_path: Path) -> None:
    class Squares(ravine.data.RowSource):
        def __len__(self) -> int:
            return 10

        def take(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return rows[:, None].float(), rows.float()[:, None] ** 2

    source: Source = Squares()
    task = ravine.Task(model=nn.Linear(1, 1), loss="mse", train=source)
    assert ravine.train(task, epochs=1, batch_size=4).facts["steps"] == 3


# A run that was broken off


class Noisy(TensorDataset):
    """Augments at random, from all three generators."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(row)
        return x + torch.rand(3) + np.random.rand() + random.random(), y


def noisy(_: Path) -> Noisy:
    X, y = (torch.from_numpy(part) for part in numbers())
    return Noisy(X, y)


RESUMED = {
    **SOURCES,
    "noisy": noisy,
    "noisy loader": lambda folder: DataLoader(noisy(folder), 16, shuffle=True),
    "workers": lambda folder: DataLoader(noisy(folder), 16, shuffle=True, num_workers=2),
}


@pytest.mark.parametrize("step", [3, 7, 12])
@pytest.mark.parametrize("kind", RESUMED)
def test_a_resumed_run_is_the_unbroken_one(
    kind: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    # AlphaDropout draws from torch's global generator, as the noise does.
    model = nn.Sequential(nn.Linear(3, 8), nn.AlphaDropout(0.3), nn.Linear(8, 1))

    def loss(output: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return (output[:, 0] / 300 - row / 100).square().mean()

    data = RESUMED[kind](tmp_path)
    task = ravine.Task(model=model, loss=loss, train=data, valid=data)
    own = {"regularize": (), "epochs": 2} | (
        {"batch_size": None} if isinstance(data, DataLoader) else {}
    )
    whole = ravine.train(task, OPTIMIZER, **SETTINGS | own)
    run = tmp_path / "run"
    broken_off(monkeypatch, step, task, run_dir=run, checkpoint_every=1, **own)
    torch.manual_seed(99)
    check(ravine.train(task, resume=run), whole)
