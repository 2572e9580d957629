"""Parquet and Arrow files: their columns, types and faults, against pyarrow's own reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest
import torch
from data_cases import arrow, epoch, equal, numbers, parquet, rows_in, table
from torch import Tensor

from ravine.data import Table
from ravine.data.table_files import ArrowFile, ParquetFile
from ravine.errors import ArgumentError, ArgumentTypeError, DataError, RavineError, UnknownNameError

WRITERS = {"parquet": parquet, "arrow": arrow}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
Write = Callable[..., Path]


def only(path: Any, **options: Any) -> tuple[Tensor, Tensor]:
    (batch,) = epoch(Table(path, **{"target": "row"} | options), 10_000, None, 1)
    return batch


@writers
@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "bool_"]
)
def test_types_are_kept_or_converted(write: Write, kind: str, tmp_path: Path) -> None:
    values = pa.array([0, 1, 1, 0]).cast(getattr(pa, kind)()) if kind != "float16" else None
    if values is None:
        values = pa.array([0, 1, 1, 0], pa.float32()).cast(pa.float16())
    path = write(tmp_path / "t", pa.table({"x": values, "row": range(4)}), 3)
    x, row = only(path, inputs="x")
    assert str(x.dtype) == f"torch.{kind.rstrip('_')}"
    assert x.tolist() == [0, 1, 1, 0]
    assert row.dtype == torch.int64
    x, row = only(path, inputs=["x"], input_dtype=torch.float32, target_dtype=torch.int32)
    assert (x.dtype, row.dtype, x.shape) == (torch.float32, torch.int32, (4, 1))


@writers
def test_lists_of_lists_become_dimensions(write: Write, tmp_path: Path) -> None:
    images = torch.arange(5 * 6).reshape(5, 2, 3)
    kind = pa.list_(pa.list_(pa.int64(), 3), 2)
    content = pa.table({"image": pa.array(images.tolist(), kind), "row": range(5)})
    path = write(tmp_path / "t", content, 2)
    assert torch.equal(only(path, inputs="image")[0], images)
    assert torch.equal(only(path, inputs="row", target="image")[1], images)


@writers
def test_columns_that_are_not_named_are_not_read(write: Write, tmp_path: Path) -> None:
    content = table(20).append_column("words", pa.array(["a", None] * 10))
    path = write(tmp_path / "t", content)
    X, _ = numbers(20)
    assert torch.equal(only(path, inputs=["c", "a"])[0], torch.from_numpy(X[:, [2, 0]].copy()))


@pytest.mark.parametrize(("kind", "write"), [(ParquetFile, parquet), (ArrowFile, arrow)])
def test_blocks_that_are_skipped_are_not_read(
    kind: Any, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t", table(100))
    source = Table(path, inputs="a", target="row", window=10)
    whole = epoch(source, 5, 0, 1)
    read: list[int] = []
    inner = kind.read

    def counted(self: Any, block: int, columns: Any) -> Any:
        read.append(block)
        return inner(self, block, columns)

    monkeypatch.setattr(kind, "read", counted)
    assert equal(epoch(source, 5, 0, 1, 14), whole[14:])
    assert len(read) == 3
    assert sorted(rows_in(whole[14:])) == sorted(
        r for b in read for r in range(10 * b, 10 * b + 10)
    )


def test_many_batches_of_a_block_and_many_blocks_of_a_batch(tmp_path: Path) -> None:
    for block, size in [(1, 7), (7, 1), (50, 3), (3, 50)]:
        path = parquet(tmp_path / "t", table(50), block)
        for seed in (None, 0):
            batches = epoch(Table(path, inputs="a", target="row", window=5), size, seed, 1)
            assert sorted(rows_in(batches)) == list(range(50))
            assert [len(x) for x, _ in batches[:-1]] == [size] * (len(batches) - 1)


def test_files_of_both_kinds_and_names_in_order(tmp_path: Path) -> None:
    paths = [
        arrow(tmp_path / "b.feather", table(10, first=30)),
        parquet(tmp_path / "a.parquet", table(30)),
        str(parquet(tmp_path / "c.parquet", table(0))),
    ]
    assert only(paths, inputs="a")[1].tolist() == [*range(30, 40), *range(30)]
    assert only(tmp_path / "[ab].*", inputs="a")[1].tolist() == list(range(40))


def broken(column: str, values: Any, write: Write, folder: Path) -> Path:
    content = table(30).set_column(0, column, pa.array(values))
    return write(folder / "broken", content)


@writers
def test_a_null_is_told_with_its_row(write: Write, tmp_path: Path) -> None:
    path = broken("a", [1.0] * 23 + [None] + [1.0] * 6, write, tmp_path)
    with pytest.raises(DataError) as told:
        only(path, inputs=["a"], input_dtype=torch.float32)
    for part in ("column 'a' holds a null", f"row 23 of {path}", "1 in this block", "drop those"):
        assert part in str(told.value)
    lists = [[1.0, 2.0]] * 23 + [[1.0, None]] + [[1.0, 2.0]] * 6
    path = broken("a", pa.array(lists, pa.list_(pa.float64(), 2)), write, tmp_path)
    with pytest.raises(DataError, match=r"column 'a' holds a null\n.*row 23 of"):
        only(path, inputs="a")


@writers
def test_a_value_that_is_not_finite_is_told_with_its_row(write: Write, tmp_path: Path) -> None:
    path = broken("a", [1.0] * 23 + [float("inf")] + [1.0] * 6, write, tmp_path)
    with pytest.raises(DataError) as told:
        only(path, inputs="a")
    for part in ("a holds values that are not finite", "a[23]", str(path), "inf"):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"inputs": "aa"}, UnknownNameError, ["unknown column 'aa'", "t", "did you mean 'a'?"]),
        ({"target": "roww"}, UnknownNameError, ["unknown column 'roww'", "'row'", "a, b, c, day"]),
        (
            {"inputs": ["a", "row"]},
            DataError,
            ["several types", "a float, row int64", "input_dtype"],
        ),
        ({"inputs": ["a", "list"]}, DataError, ["'list' does not hold numbers", "inputs='list'"]),
        ({"inputs": "words"}, DataError, ["'words' does not hold numbers", "string"]),
        ({"inputs": "ragged"}, DataError, ["'ragged' does not hold numbers", "one fixed size"]),
        ({"inputs": "day"}, DataError, ["'day' does not hold numbers", "date32"]),
        ({"inputs": []}, ArgumentTypeError, ["inputs does not name columns"]),
        ({"target": 3}, ArgumentTypeError, ["target does not name columns", "got:      3"]),
        ({"input_dtype": float}, ArgumentTypeError, ["dtype of inputs", "<class 'float'>"]),
        ({"window": 0}, ArgumentError, ["window cannot be used", "0"]),
    ],
    ids=str,
)
def test_columns_that_cannot_be_used_are_refused(
    options: dict[str, Any], error: type[RavineError], words: list[str], tmp_path: Path
) -> None:
    content = table(4).append_column("words", pa.array(["x"] * 4))
    content = content.append_column("ragged", pa.array([[1], [1, 2], [], [3]]))
    content = content.append_column("day", pa.array([0, 1, 2, 3], pa.date32()))
    path = parquet(tmp_path / "t", content)
    with pytest.raises(error) as told:
        Table(path, **{"inputs": "a", "target": "row"} | options)
    assert all(word in str(told.value) for word in words), str(told.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    options = {"inputs": "a", "target": "row"}
    words = tmp_path / "words.csv"
    words.write_text("a,row\n")
    cut = parquet(tmp_path / "cut.parquet", table(30))
    cut.write_bytes(cut.read_bytes()[:-9])
    stream = tmp_path / "stream.arrow"
    with pa.ipc.new_stream(stream, table(4).schema) as writer:
        writer.write_table(table(4))
    other = parquet(tmp_path / "other.parquet", table(4).set_column(0, "a", pa.array([1] * 4)))
    good = parquet(tmp_path / "good.parquet", table(4))
    for paths, expected in [
        (tmp_path / "none.parquet", ["cannot be read as a table", "No such file"]),
        (tmp_path, ["cannot be read as a table", "folder/*.parquet"]),
        (str(tmp_path / "*.orc"), ["no file has such a name", "*.orc"]),
        (words, ["begins with b'a,row\\n'", "a Parquet file or an Arrow IPC"]),
        (cut, ["cannot be read as a table", str(cut)]),
        (stream, ["cannot be read as a table", "begins with"]),
        ([good, other], ["another type than in the first", "int64", f"float, as in {good}"]),
        (parquet(tmp_path / "empty.parquet", table(0)), ["the data is empty", "empty.parquet"]),
    ]:
        with pytest.raises(DataError) as told:
            Table(paths, **options)
        assert all(word in str(told.value) for word in expected), str(told.value)
    with pytest.raises(ArgumentTypeError, match="are not paths"):
        Table([], **options)


@writers
def test_a_file_that_changes_under_the_run_is_told(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "t", table(30))
    source = Table(path, inputs="a", target="row")
    write(path, table(30), 15)
    with pytest.raises(DataError, match=r"(?s)has changed.*block 0.*15 rows.*expected: 10"):
        epoch(source, 4, None, 1)
    path.unlink()
    with pytest.raises(DataError, match=r"(?s)can no longer be read.*block 0"):
        epoch(source, 4, None, 1)


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"(?s)not installed.*pip install 'ravine\[data\]'"):
        Table(tmp_path / "t", inputs="a", target="row")
