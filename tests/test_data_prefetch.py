"""Batches read ahead: in order, with their errors, and no thread is left behind."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator

import programs
import pytest
import torch
from torch import Tensor, nn

import ravine
from ravine.data import RowSource
from ravine.training.batches.prefetch import prefetched


def threads() -> int:
    return sum(thread.name == "ravine data" for thread in threading.enumerate())


class Counted:
    """An iterator that tells how far it was taken, and waits where it is told to."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.taken = 0
        self.reached = {k: threading.Event() for k in range(last + 1)}

    def __iter__(self) -> Iterator[int]:
        for number in range(self.last):
            self.taken += 1
            self.reached[self.taken].set()
            yield number


def test_items_come_in_order_and_no_more_are_made_than_may_wait() -> None:
    items = Counted(20)
    ahead = prefetched(lambda: iter(items), ahead=3)
    assert threads() == 0
    assert next(ahead) == 0
    assert threads() == 1
    assert items.reached[4].wait(20)  # one was taken, three wait
    assert items.taken == 4
    assert list(ahead) == list(range(1, 20))
    assert items.taken == 20
    assert threads() == 0


def test_nothing_at_all_is_an_end() -> None:
    assert list(prefetched(lambda: iter(()))) == []
    assert threads() == 0


def test_an_error_comes_after_the_items_before_it_with_its_own_lines() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    ahead = prefetched(broken)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone") as told:
        next(ahead)
    assert "in broken" in "".join(traceback.format_exception(told.value))
    assert threads() == 0
    assert list(ahead) == []

    def at_once() -> Iterator[int]:
        raise ValueError("no such table")

    with pytest.raises(ValueError, match="no such table"):
        list(prefetched(at_once))
    assert threads() == 0


@pytest.mark.parametrize("way", ["closed", "dropped", "never begun"])
def test_an_iterator_that_is_left_ends_its_thread(way: str) -> None:
    ahead = prefetched(lambda: iter(range(100)))
    if way != "never begun":
        next(ahead)
    if way == "closed":
        ahead.close()
    del ahead
    assert threads() == 0


class Rows(RowSource):
    """Ten rows; one of them may be broken."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self.broken in rows.tolist():
            raise OSError(f"row {self.broken} cannot be read")
        return rows[:, None].float(), rows[:, None].float()


def small(**parts: RowSource) -> ravine.Task:
    return ravine.Task(model=nn.Linear(1, 1), loss="mse", **parts)


def test_no_epoch_leaves_a_thread_however_it_ends() -> None:
    ravine.train(small(train=Rows(), valid=Rows()), epochs=3, batch_size=3)
    assert threads() == 0
    for parts in ({"train": Rows(7)}, {"train": Rows(), "valid": Rows(7)}):
        with pytest.raises(OSError, match="row 7 cannot be read"):
            ravine.train(small(**parts), epochs=3, batch_size=3)
        assert threads() == 0

    def stop(event: object) -> None:
        if type(event).__name__ == "StepDone":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as told:
        ravine.train(small(train=Rows()), epochs=3, batch_size=1, listeners=[stop])
    assert told.traceback  # which keeps the loop's iterator
    assert threads() == 0


def test_reading_ahead_does_not_move_the_models_random_numbers() -> None:
    """The same steps whether the rows are in memory, read by a thread or by a Dataset."""
    X = torch.arange(10.0)[:, None]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.AlphaDropout(0.5), nn.Linear(8, 1))
    runs = [
        ravine.train(
            ravine.Task(model=model, loss="mse", train=data),
            "sgd(lr=1e-3)",
            epochs=3,
            batch_size=3,
        )
        for data in ((X, X), Rows(), torch.utils.data.TensorDataset(X, X))
    ]
    losses = [[row["train/loss"] for row in run.history] for run in runs]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("busy", ["reading", "working"])
def test_ctrl_c_ends_a_process_that_waits(busy: str) -> None:
    code = (
        "import sys, threading\n"
        "from ravine.training.batches.prefetch import prefetched\n"
        "def wait(place):\n"
        "    if place == sys.argv[1]:\n"
        "        print(place, flush=True)\n"
        "        threading.Event().wait(300)\n"
        "def rows():\n"
        "    wait('reading')\n"
        "    yield from range(100)\n"
        "ahead = prefetched(rows)\n"
        "try:\n"
        "    next(ahead)\n"
        "    wait('working')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    with programs.Program(["-c", code, busy]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{busy}\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0] == "interrupted\n"
    assert process.returncode == 0
