"""The threads of a run: one where the work is small, and the caller's number comes back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from training_cases import points, same, task, weights

import ravine
from ravine.errors import ArgumentTypeError
from ravine.training.threads import work


@pytest.mark.parametrize(
    ("rows", "hidden", "batch_size", "one"),
    [(40, 16, 16, True), (2000, 1000, 64, True), (2000, 1000, "all", False), (8, 1, 1, True)],
)
def test_small_steps_run_on_one_thread_and_the_callers_number_comes_back(
    rows: int, hidden: int, batch_size: int | str, one: bool
) -> None:
    seen: list[int] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return nn.functional.cross_entropy(output, target)

    model = nn.Sequential(nn.Linear(4, hidden), nn.Linear(hidden, 3))
    made = task(model=model, loss=loss, train=points(rows))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        record = ravine.train(made, batch_size=batch_size, epochs=1)
        assert set(seen) == {1 if one else 3}
        assert record.environment["threads"] == seen[0]
        assert torch.get_num_threads() == 3
        with pytest.raises(ArgumentTypeError):
            ravine.train(made, loss=lambda o, t: 1.0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_callers_threads_do_not_change_the_bits_of_a_small_run() -> None:
    before = torch.get_num_threads()
    records = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            records.append(ravine.train("digits", epochs=2))
    finally:
        torch.set_num_threads(before)
    assert same(weights(records[0].model), weights(records[1].model))


def test_the_work_counts_the_places_of_a_weight() -> None:
    weight = nn.Linear(10, 1, bias=False)
    assert work(weight, torch.zeros(8, 10), 4) == 6 * 10 * 4
    assert work(weight, torch.zeros(8, 7, 10), 4) == 6 * 10 * 4 * 10  # of 7 tokens, or channels
    assert work(weight, torch.zeros(8, 3, 32, 32), 4) == 6 * 10 * 4 * 32 * 32
    assert work(weight, torch.zeros(8, 128, dtype=torch.int64), 4) == 6 * 10 * 4 * 128
