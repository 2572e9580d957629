"""What every source of data must do, and a naive reader to compare it with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data import Arrays, Characters, Source, Table, Tokens

Batch = tuple[Tensor, Tensor]

ROWS = 103
"""A prime: no batch and no block divides it."""


def numbers(rows: int = ROWS) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Inputs that tell which row they are, and the row."""
    return np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3), np.arange(rows)


def mapped(folder: Path, name: str, array: np.ndarray[Any, Any]) -> np.memmap[Any, Any]:
    """The array as a read-only memory-mapped file."""
    np.save(folder / f"{name}.npy", array)
    found: np.memmap[Any, Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return found


def table(rows: int = ROWS, first: int = 0) -> Any:
    """Columns a, b, c of inputs, their list, and the row."""
    import pyarrow

    X, y = numbers(first + rows)
    X, y = X[first:], y[first:]
    columns = {name: X[:, k] for k, name in enumerate("abc")}
    listed = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(X.ravel()), 3)
    return pyarrow.table({**columns, "list": listed, "row": y})


def parquet(path: Path, content: Any, block: int = 10) -> Path:
    import pyarrow.parquet

    pyarrow.parquet.write_table(content, path, row_group_size=block)
    return path


def arrow(path: Path, content: Any, block: int = 10, **options: Any) -> Path:
    import pyarrow.feather

    pyarrow.feather.write_feather(content, path, chunksize=block, **options)
    return path


def of_arrays(folder: Path) -> Source:
    X, y = numbers()
    return Arrays(mapped(folder, "X", X), mapped(folder, "y", y))


def of_blocks(folder: Path) -> Source:
    X, y = numbers()
    return Arrays(mapped(folder, "X", X), y, block=10, window=25)


def of_selected(folder: Path) -> Source:
    X, y = numbers(2 * ROWS)
    # Row k of the selected ones is row k of `numbers`.
    twice = Arrays(np.repeat(X[:ROWS], 2, axis=0), np.repeat(y[:ROWS], 2))
    return twice.select(range(1, 2 * ROWS, 2))


def of_parquet(folder: Path) -> Source:
    path = parquet(folder / "rows.parquet", table())
    return Table(path, inputs=["a", "b", "c"], target="row", window=25)


def of_files(folder: Path) -> Source:
    parquet(folder / "part-2.parquet", table(63, first=40), block=25)
    parquet(folder / "part-1.parquet", table(40))
    parquet(folder / "part-0.parquet", table(0))
    return Table(str(folder / "part-*.parquet"), inputs="list", target="row", window=25)


def of_arrow(folder: Path) -> Source:
    path = arrow(folder / "rows.arrow", table(), compression="uncompressed")
    return Table(path, inputs=["a", "b", "c"], target="row", window=25)


def of_feather(folder: Path) -> Source:
    path = arrow(folder / "rows.feather", table(), compression="zstd")
    return Table([path], inputs="list", target="row", window=25)


SOURCES = {
    "memmap": of_arrays,
    "memmap in blocks": of_blocks,
    "selected": of_selected,
    "parquet": of_parquet,
    "parquet files": of_files,
    "arrow": of_arrow,
    "compressed feather": of_feather,
}
"""Every kind of source of rows, holding `numbers`."""

TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 🏊 " * 9


def of_characters(folder: Path) -> Source:
    path = folder / "words.txt"
    path.write_bytes(TEXT.encode())
    return Characters(path, length=5)


def of_tokens(folder: Path) -> Source:
    return Tokens(mapped(folder, "tokens", np.arange(5 * ROWS + 3, dtype=np.uint16)), length=5)


SEQUENCES = {"characters": of_characters, "tokens": of_tokens}


def epoch(source: Source, size: int, seed: int | None, number: int, skip: int = 0) -> list[Batch]:
    return list(source.batches(size, seed=seed, number=number, skip=skip))


def rows_in(batches: Iterable[Batch]) -> list[int]:
    return [row for _, targets in batches for row in targets.tolist()]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )
