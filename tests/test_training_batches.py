"""Batches: every epoch in an order of its own, and any batch without those before it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from training_cases import FORMS

from ravine.errors import ArgumentError
from ravine.training.batches import Batch, Batches, evaluation_batches, training_batches

CPU = torch.device("cpu")
ROWS = 40


def numbered(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Inputs that tell which row they are."""
    return torch.arange(4.0 * rows).reshape(rows, 4), torch.arange(rows)


def noise() -> float:
    """A number of each of the three global generators."""
    return torch.rand(()).item() + np.random.rand() + random.random()


class Noisy(Dataset[Any]):
    """Augments at random, as datasets of images do."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([noise()] * 4), torch.tensor(row)


class NoisyStream(IterableDataset[Any]):
    """Shuffles and augments at random; in worker processes each has its own part."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rows = list(range(first, ROWS, every))
        random.shuffle(rows)
        for row in rows:
            yield torch.tensor([noise()] * 4), torch.tensor(row)


class Drawing:
    """A sampler of one's own that draws as it goes."""

    def __iter__(self) -> Iterator[int]:
        return (np.random.randint(ROWS) for _ in range(ROWS))

    def __len__(self) -> int:
        return ROWS


SEEDS = itertools.count()


def own_generator() -> torch.Generator:
    """A generator in another state each time, which must not matter."""
    return torch.Generator().manual_seed(next(SEEDS))


LOADERS = {
    "generator": lambda: DataLoader(Noisy(), 7, shuffle=True, generator=own_generator()),
    "replacement": lambda: DataLoader(
        Noisy(), 7, sampler=RandomSampler(Noisy(), replacement=True, generator=own_generator())
    ),
    "subset": lambda: DataLoader(Noisy(), 7, sampler=SubsetRandomSampler(range(30))),
    "weighted": lambda: DataLoader(Noisy(), 7, sampler=WeightedRandomSampler([1.0] * ROWS, 30)),
    "own sampler": lambda: DataLoader(Noisy(), 7, sampler=Drawing()),
    "batch sampler": lambda: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(Noisy()), 7, drop_last=True)
    ),
    "distributed": lambda: DataLoader(
        Noisy(), 7, sampler=DistributedSampler(Noisy(), num_replicas=2, rank=1)
    ),
    "stream": lambda: DataLoader(NoisyStream(), 7),
    "workers": lambda: DataLoader(Noisy(), 7, shuffle=True, num_workers=2),
    "persistent workers": lambda: DataLoader(
        Noisy(), 7, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "stream in workers": lambda: DataLoader(NoisyStream(), 4, num_workers=2),
}
DATA: dict[str, Any] = {
    **{f"points: {form}": lambda make=make: make(numbered()) for form, make in FORMS.items()},
    "noisy": Noisy,
    "noisy stream": NoisyStream,
    **{f"loader: {name}": make for name, make in LOADERS.items()},
}
SHUFFLED = [name for name in DATA if name.startswith("points: ") and "stream" not in name]
SHUFFLED = [name for name in SHUFFLED if "batch sampler" not in name]


def made(name: str, seed: int = 3, size: Any = 7) -> Batches:
    return training_batches(DATA[name](), size, CPU, seed)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("name", DATA)
def test_an_epoch_goes_on_at_any_batch(name: str) -> None:
    whole = {number: list(made(name).epoch(number)) for number in (1, 2)}
    assert not equal(whole[1], whole[2]) or "points" in name
    for number, skip in [(1, 0), (2, 1), (1, 3), (2, len(whole[2]))]:
        torch.manual_seed(skip)  # what was drawn before does not matter, nor does the epoch before
        assert equal(list(made(name).epoch(number, skip)), whole[number][skip:])
    again = made(name)
    assert equal(list(again.epoch(2)), whole[2])
    assert equal(list(again.epoch(1)), whole[1])
    assert again.state_dict() == {}


@pytest.mark.parametrize("name", SHUFFLED)
def test_every_epoch_is_a_permutation_of_its_own(name: str) -> None:
    orders = []
    for seed in (3, 4):
        batches = made(name, seed)
        for number in (1, 2, 3):
            inputs, targets = zip(*batches.epoch(number), strict=True)
            rows = torch.cat(targets)
            assert torch.equal(torch.cat(inputs), numbered()[0][rows])
            assert sorted(rows.tolist()) == list(range(ROWS))
            orders.append(tuple(rows.tolist()))
    assert len(set(orders)) == 6


def test_large_tensors_have_the_order_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    small = list(made("points: tensors").epoch(2, 1))
    monkeypatch.setattr("ravine.training.batches.tensors._SHUFFLE_WHOLE", 0)
    assert equal(list(made("points: tensors").epoch(2, 1)), small)


def test_tensors_and_datasets_have_one_order() -> None:
    assert equal(
        list(made("points: tensors").epoch(2)), list(made("points: tensor dataset").epoch(2))
    )


@pytest.mark.parametrize("name", DATA)
def test_what_is_drawn_for_the_data_is_drawn_from_nobody_else(name: str) -> None:
    data = DATA[name]()
    state = data.generator.get_state() if getattr(data, "generator", None) is not None else None
    batches = training_batches(data, 7, CPU, 0)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    def untouched() -> bool:
        return (
            torch.equal(torch.random.get_rng_state(), states[0])
            and np.array_equal(np.random.get_state()[1], states[1])
            and random.getstate() == states[2]
            and (state is None or torch.equal(data.generator.get_state(), state))
        )

    epoch = batches.epoch(2, 2)
    assert untouched()  # what is skipped is drawn by now
    assert all(untouched() for _ in epoch)
    assert untouched()


def test_what_is_skipped_is_not_read() -> None:
    class Reading(Noisy):
        read: list[int] = []  # noqa: RUF012

        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            self.read.append(row)
            return super().__getitem__(row)

    rows = [
        row
        for _, targets in training_batches(Reading(), 7, CPU, 0).epoch(1, 4)
        for row in targets.tolist()
    ]
    assert Reading.read == rows
    assert len(rows) == ROWS - 4 * 7


def test_workers_draw_different_numbers() -> None:
    """The known trap: workers that are copies of one process repeat its NumPy numbers."""

    class Numpy(Noisy):
        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            return torch.tensor(np.random.rand()), torch.tensor(row)

    loader = DataLoader(Numpy(), 5, num_workers=2)
    batches = training_batches(loader, 5, CPU, 0)
    seen = [x.tolist() for number in (1, 2) for inputs, _ in batches.epoch(number) for x in inputs]
    assert len(set(seen)) == 2 * ROWS


@pytest.mark.parametrize("name", ["points: tensors", "noisy", "loader: generator", "noisy stream"])
def test_an_epoch_that_is_too_short_to_go_on_is_an_error(name: str) -> None:
    with pytest.raises(
        ArgumentError, match="ends before the batch at which it is to go on"
    ) as told:
        made(name).epoch(2, 7)
    for part in ("epoch 2 of the data", "6 batches", "7 batches at least"):
        assert part in str(told.value)


def test_set_epoch_is_called_as_torch_counts() -> None:
    class Told(Noisy):
        told: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.told.append(epoch)

    for data in (Told(), DataLoader(Told(), 7)):
        list(training_batches(data, 7, CPU, 0).epoch(3))
    assert Told.told == [2, 2]


def test_workers_whose_order_is_chance_are_refused() -> None:
    loader = DataLoader(Noisy(), 7, num_workers=2, in_order=False)
    with pytest.raises(ArgumentError, match="in which its workers finish"):
        training_batches(loader, 7, CPU, 0)


def test_a_dataset_without_length_is_refused() -> None:
    class Endless(Dataset[Any]):
        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            return torch.zeros(1), torch.zeros(1)

    with pytest.raises(ArgumentError, match="does not tell its length") as told:
        training_batches(Endless(), 7, CPU, 0)
    assert "IterableDataset" in str(told.value)


def test_a_saved_position_of_other_data_is_refused() -> None:
    batches = made("points: tensors")
    batches.load_state_dict({})
    with pytest.raises(ArgumentError, match="belongs to data of another kind"):
        batches.load_state_dict({"cursor": 3})


@pytest.mark.parametrize("name", ["points: tensors", "points: dataset", "points: stream"])
def test_data_that_is_looked_at_keeps_its_order(name: str) -> None:
    batches = evaluation_batches(DATA[name](), CPU, 16)
    for number in (1, 2):
        rows = torch.cat([targets for _, targets in batches.epoch(number)])
        assert rows.tolist() == list(range(ROWS))


def test_another_process_has_the_same_order() -> None:
    code = (
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_training_batches import made\n"
        "for name in ('points: tensors', 'points: loader', 'loader: workers'):\n"
        "    print(*(row for _, y in made(name).epoch(2, 1) for row in y.tolist()))\n"
    )
    done = programs.run(["-c", code], check=True)
    for line, name in zip(
        done.stdout.splitlines(),
        ("points: tensors", "points: loader", "loader: workers"),
        strict=True,
    ):
        rows = [row for _, y in made(name).epoch(2, 1) for row in y.tolist()]
        assert line.split() == [str(row) for row in rows]
