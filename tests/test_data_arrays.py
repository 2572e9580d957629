"""Arrays: NumPy arrays in memory, and memory-mapped files that are read row by row."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import epoch, mapped, numbers, rows_in
from torch import nn

import ravine
from ravine.data import Arrays, Tokens
from ravine.errors import ArgumentError, DataError, TaskError


def task(X: Any, y: Any, **parts: Any) -> ravine.Task:
    return ravine.Task(model=nn.Linear(3, 1).double(), loss="mse", train=(X, y), **parts)


DTYPES = ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool", "complex64"]


@pytest.mark.parametrize("dtype", [*DTYPES, ">f8", ">i4"])
def test_dtypes_are_kept_and_byte_orders_mended(dtype: str, tmp_path: Path) -> None:
    X = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
    y = np.arange(4)
    for inputs in (X, mapped(tmp_path, "X", X)):
        made = Arrays(inputs, y).take(torch.tensor([2, 0]))[0]
        assert made.dtype == torch.from_numpy(X.astype(X.dtype.newbyteorder("="))).dtype
        assert np.array_equal(made.numpy(), X[[2, 0]])
    in_memory = task(X, y).train[0]
    assert np.array_equal(in_memory.numpy(), X)


def test_arrays_in_memory_become_tensors_that_share_it() -> None:
    X, y = np.ones((4, 3)), np.ones((4, 1))
    made = task(X, y)
    assert isinstance(made.train, tuple)
    assert made.train[0].data_ptr() == X.ctypes.data
    assert ravine.train(made, epochs=1).metrics["train/loss"] >= 0


def test_arrays_that_torch_warns_of_or_refuses_are_taken_quietly() -> None:
    X, y = np.arange(12.0).reshape(4, 3), np.ones((4, 1))
    fixed = X.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for inputs in (fixed, X[::-1], X[:, ::-1], np.asfortranarray(X), X[::2].repeat(2, 0)):
            assert np.array_equal(task(inputs, y).train[0].numpy(), inputs)


@pytest.mark.parametrize("view", [lambda m: m, lambda m: m[10:], lambda m: np.asarray(m)[::2]])
def test_mapped_files_and_views_of_them_are_not_read_beforehand(view: Any, tmp_path: Path) -> None:
    X, y = numbers()
    X[50] = np.nan  # told when that row is read, not before
    data = view(mapped(tmp_path, "X", X)), torch.from_numpy(np.ascontiguousarray(view(y)))
    made = task(*data)
    assert isinstance(made.train, Arrays)
    assert len(made.train) == len(data[1])
    with warnings.catch_warnings():  # the file is read-only
        warnings.simplefilter("error")
        first = made.train.take(torch.tensor([1]))[0]
    assert torch.equal(first, torch.from_numpy(view(X)[[1]]))
    first.zero_()  # a batch is a copy: it may be written
    row = int(np.flatnonzero(view(y) == 50)[0])
    with pytest.raises(DataError, match=rf"where: +X\[{row}, 0\]") as told:
        epoch(made.train, 16, 0, 1)
    assert "got:      nan; 3 in this batch" in str(told.value)


def test_values_that_overflow_their_sum_are_finite() -> None:
    X = np.full((4, 3), 3e38, np.float32)
    assert rows_in(epoch(Arrays(X, np.arange(4)), 4, None, 1)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.zeros((3, 2)), np.zeros(4), ["X and y differ in length", "X (3, 2), y (4,)"]),
        (np.zeros((0, 2)), np.zeros(0), ["the data is empty", "X (0, 2)"]),
        (
            np.zeros((2, 2)).astype(str),
            np.zeros(2),
            ["X does not hold numbers", "dtype <U", "X.as"],
        ),
        (np.zeros(2), np.array([{}, {}]), ["y does not hold numbers", "dtype object"]),
        ([1.0], np.zeros(1), ["X is no array", "got:      list", "mmap_mode"]),
        (np.array(1.0), np.zeros(1), ["X is a single number"]),
    ],
    ids=["lengths", "empty", "words", "objects", "list", "number"],
)
def test_arrays_that_are_no_rows_of_numbers_are_refused(X: Any, y: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as told:
        Arrays(X, y)
    assert all(word in str(told.value) for word in words), str(told.value)


def test_a_task_says_which_part_is_wrong(tmp_path: Path) -> None:
    words = np.array([["a"]] * 4)
    for X in (words, mapped(tmp_path, "words", words)):
        with pytest.raises(DataError, match=r"X does not hold numbers(.|\n)*X in train of task"):
            task(X, np.zeros(4))
    with pytest.raises(TaskError, match=r"X and y differ in length(.|\n)*valid of task"):
        task(np.zeros((4, 3)), np.zeros(4), valid=(mapped(tmp_path, "v", np.zeros(3)), np.zeros(2)))
    with pytest.raises(TaskError, match="X holds values that are not finite"):
        task(np.full((4, 3), np.inf), np.zeros(4))


@pytest.mark.parametrize("options", [{"block": 0}, {"block": 2.5}, {"block": 2, "window": 0}])
def test_bad_blocks_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be used(.|\n)*an integer >= 1"):
        Arrays(np.zeros(4), np.zeros(4), **options)


@pytest.mark.parametrize("rows", [[], [3], [-1], [[0]]])
def test_rows_that_are_not_there_cannot_be_selected(rows: Any) -> None:
    with pytest.raises(ArgumentError, match=r"(?s)cannot be selected.*each from 0 to 2"):
        Arrays(np.zeros(3), np.zeros(3)).select(rows)


def test_tokens_are_windows_and_the_token_after_each_place() -> None:
    tokens = np.random.default_rng(0).integers(0, 60_000, 103).astype(np.uint16)
    source = Tokens(tokens, length=5)
    assert (len(source), source.rest) == (20, 2)
    for row in range(len(source)):
        x, y = source.take(torch.tensor([row]))
        assert x.dtype == y.dtype == torch.int64
        assert x[0].tolist() == tokens[5 * row : 5 * row + 5].tolist()
        assert y[0].tolist() == tokens[5 * row + 1 : 5 * row + 6].tolist()


@pytest.mark.parametrize(
    ("tokens", "length", "words"),
    [
        (np.zeros(9), 3, ["one sequence of integers", "float64"]),
        (np.zeros((9, 2), int), 3, ["one sequence of integers", "(9, 2)"]),
        (np.zeros(3, int), 3, ["shorter than a window", "3 tokens", "4 at least"]),
        (np.zeros(9, int), 0, ["length of a window", "0"]),
        (np.zeros(9, int), 1.5, ["length of a window", "1.5"]),
    ],
    ids=["floats", "table", "short", "zero", "fraction"],
)
def test_tokens_that_are_no_sequence_are_refused(tokens: Any, length: Any, words: Any) -> None:
    with pytest.raises((DataError, ArgumentError)) as told:
        Tokens(tokens, length)
    assert all(word in str(told.value) for word in words), str(told.value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_a_file_larger_than_the_memory_that_is_allowed_is_trained_on(tmp_path: Path) -> None:
    """A sparse file of 4 GB, in a process that may take 1 GB of memory of its own."""
    code = (
        "import resource, sys\n"
        "import numpy as np, ravine, torch\n"
        "X = np.memmap(sys.argv[1], np.float32, 'w+', shape=(1_000_000, 1024))\n"
        "X = np.memmap(sys.argv[1], np.float32, 'r', shape=(1_000_000, 1024))\n"
        "own = int(open('/proc/self/statm').read().split()[5]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (own + (1 << 30), own + (1 << 30)))\n"
        "task = ravine.Task(model=torch.nn.Linear(1024, 1), loss='mse',\n"
        "                   train=(X, np.ones((len(X), 1), np.float32)))\n"
        "def stop(event):\n"
        "    if getattr(event, 'step', 0) >= 20: raise KeyboardInterrupt\n"
        "try: ravine.train(task, 'sgd(lr=0.1)', batch_size=64, listeners=[stop], device='cpu')\n"
        "except KeyboardInterrupt as error: print(error.record.facts['steps'] >= 20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "X.bin")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr
