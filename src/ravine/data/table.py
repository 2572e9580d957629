"""Rows of Parquet and Arrow files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.arrays import check_finite
from ravine.data.fingerprint import of_files
from ravine.data.order import Window, Windowed
from ravine.data.source import Pair, Source
from ravine.data.table_files import Paths, TableFile, check_columns, open_files
from ravine.errors import ArgumentError, ArgumentTypeError, DataError

Columns = str | Sequence[str]


class Table(Source):
    """Rows of Parquet or Arrow IPC (Feather) files, which may be larger than memory.

    The blocks of the files (Parquet's row groups, Arrow's record batches) are put in an order of
    the epoch and read one by one; the rows are mixed inside a window of blocks (`Windowed` says
    what differs from a permutation of all rows). Blocks that are skipped are not read: their sizes
    are known beforehand. In memory are a window and the batches read ahead. Needs pyarrow
    (``pip install 'ravine[data]'``).

    Args:
        paths: a file, a pattern ``"rows/*.parquet"`` (files in the order of their names), or a list.
        inputs: a column, whose rows are the inputs: numbers, or lists of one fixed size; or a list
            of columns of numbers, which become the inputs' last dimension.
        target: a column or a list of columns, likewise.
        input_dtype, target_dtype: what the numbers are converted to; None keeps the columns' type.
        window: rows that are mixed at a time, at least; whole blocks.

    Raises:
        UnknownNameError: a file has no such column.
        DataError: a file cannot be read, or a column does not hold numbers of one shape. While
            rows are read: a null, or a value that is NaN or infinite, with file and row.

    Example:
        >>> import pyarrow, pyarrow.parquet
        >>> from tempfile import NamedTemporaryFile
        >>> columns = pyarrow.table({"x": [0.5, 1.5], "z": [1.0, 2.0], "label": [0, 1]})
        >>> with NamedTemporaryFile(suffix=".parquet") as file:
        ...     pyarrow.parquet.write_table(columns, file.name)
        ...     table = Table(file.name, inputs=["x", "z"], target="label", input_dtype=torch.float32)
        ...     len(table), next(table.batches(2, seed=None, number=1))
        (2, (tensor([[0.5000, 1.0000],
                [1.5000, 2.0000]]), tensor([0, 1])))
    """

    def __init__(
        self,
        paths: Paths,
        *,
        inputs: Columns,
        target: Columns,
        input_dtype: torch.dtype | None = None,
        target_dtype: torch.dtype | None = None,
        window: int = 65_536,
    ) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ArgumentError(
                "window cannot be used", got=repr(window), expected="an integer >= 1"
            )
        self._inputs = _Part("inputs", inputs, input_dtype)
        self._target = _Part("target", target, target_dtype)
        self._columns = list(dict.fromkeys([*self._inputs.columns, *self._target.columns]))
        self._files = open_files(paths)
        check_columns(self._files, self._columns)
        for part in (self._inputs, self._target):
            part.check_types(self._files[0])
        self._blocks = [
            (file, block, first)
            for file in self._files
            for block, first in enumerate(np.cumsum([0, *file.sizes])[:-1].tolist())
            if file.sizes[block]
        ]
        sizes = [file.sizes[block] for file, block, _ in self._blocks]
        self._rows = sum(sizes)
        if self._rows == 0:
            raise DataError(
                "the data is empty",
                where=", ".join(str(file.path) for file in self._files[:3]),
                got="no row",
                expected="one row at least",
            )
        self._order = Windowed(sizes, window)

    def __len__(self) -> int:
        return self._rows

    def batches(self, size: int, *, seed: int | None, number: int, skip: int = 0) -> Iterator[Pair]:
        """Return the batches of an epoch; blocks that are skipped are not read."""
        first = skip * size
        windows = (
            self._order.in_turn(first) if seed is None else self._order.epoch(seed, number, first)
        )
        waiting: list[Pair] = []
        count = 0
        for window in windows:
            inputs, targets = self._read(window)
            at = 0
            if count:  # the batch that the last window began
                at = min(size - count, len(inputs))
                waiting.append((inputs[:at], targets[:at]))
                count += at
                if count < size:
                    continue
                yield _joined(waiting)
                waiting, count = [], 0
            whole = at + (len(inputs) - at) // size * size
            for start in range(at, whole, size):
                yield inputs[start : start + size], targets[start : start + size]
            if whole < len(inputs):  # a copy, so that the window itself can go
                waiting = [(inputs[whole:].clone(), targets[whole:].clone())]
                count = len(inputs) - whole
        if count:
            yield _joined(waiting)

    def fingerprint(self) -> dict[str, Any]:
        """Return rows, columns, how rows are mixed, and size and checksum of the files.

        Raises:
            DataError: a file can no longer be read.
        """
        paths = [file.path for file in self._files]
        try:
            files = of_files(paths)
        except OSError as error:
            raise DataError(
                "the file can no longer be read", where=str(error.filename), got=str(error.strerror)
            ) from error
        columns = {part.name: ", ".join(part.columns) for part in (self._inputs, self._target)}
        return {"rows": self._rows, **columns, **self._order.facts(), **files}

    def _read(self, window: Window) -> Pair:
        """Read the blocks of a window; return its rows in their order."""
        read: list[Pair] = []
        for number in window.blocks:
            file, block, first = self._blocks[number]
            try:
                table = file.read(block, self._columns)
            except (OSError, ValueError) as error:  # what pyarrow raises derives from these
                raise DataError(
                    "the file can no longer be read",
                    where=f"{file.path}, block {block}",
                    got=str(error).splitlines()[0],
                    expected=f"the {self._rows} rows that were there when the table was made",
                ) from error
            if table.num_rows != file.sizes[block]:
                raise DataError(
                    "the file has changed since the table was made",
                    where=f"{file.path}, block {block}",
                    got=f"{table.num_rows} rows",
                    expected=f"{file.sizes[block]}",
                    do="begin a new run",
                )
            parts = (self._inputs, self._target)
            inputs, targets = (part.tensor(table, file, first) for part in parts)
            read.append((inputs, targets))
        inputs, targets = _joined(read)
        return inputs[window.order], targets[window.order]


class _Part:
    """The columns of the inputs or of the target, and the tensor they make."""

    def __init__(self, name: str, columns: Columns, dtype: torch.dtype | None) -> None:
        self.name = name
        self.single = isinstance(columns, str)
        listed: object = [columns] if self.single else columns
        if (
            not isinstance(listed, list | tuple)
            or not listed
            or not all(isinstance(column, str) for column in listed)
        ):
            raise ArgumentTypeError(
                f"{name} does not name columns",
                got=repr(columns),
                expected="a column's name, or a list of names",
            )
        self.columns = list(listed)
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise ArgumentTypeError(
                f"the dtype of {name} is none of torch",
                got=repr(dtype),
                expected="such as torch.float32",
            )
        self.dtype = dtype

    def check_types(self, file: TableFile) -> None:
        """Raise DataError if the columns are not numbers, or of several types."""
        import pyarrow

        types = [file.types()[column] for column in self.columns]
        for column, kind in zip(self.columns, types, strict=True):
            inner = kind
            while self.single and pyarrow.types.is_fixed_size_list(inner):
                inner = inner.value_type
            known = pyarrow.types
            if not (known.is_integer(inner) or known.is_floating(inner) or known.is_boolean(inner)):
                listed = "numbers, or lists of numbers of one fixed size"
                raise DataError(
                    f"column {column!r} does not hold numbers",
                    where=str(file.path),
                    got=str(kind),
                    expected=listed if self.single else "numbers in each of several columns",
                    do="convert it when the file is written"
                    if self.single
                    else f"convert it, or give a column of lists alone: {self.name}={column!r}",
                )
        if self.dtype is None and len(set(types)) > 1:
            kinds = zip(self.columns, types, strict=True)
            dtype = "input_dtype" if self.name == "inputs" else "target_dtype"
            raise DataError(
                f"the columns of {self.name} have several types",
                where=str(file.path),
                got=", ".join(f"{column} {kind}" for column, kind in kinds),
                do=f"say what they become: {dtype}=torch.float32",
            )

    def tensor(self, table: Any, file: TableFile, first: int) -> Tensor:
        """Return the columns of a block whose first row has a number in its file."""
        arrays = []
        for column in self.columns:
            values = table.column(column).combine_chunks()
            array = torch.from_numpy(_numbers(values, column, file, first))
            if self.dtype is not None:
                array = array.to(self.dtype)
            if array.is_floating_point():
                rows = torch.arange(first, first + len(array))
                check_finite(column, array, rows, where=f"in {file.path}")
            arrays.append(array)
        return arrays[0] if self.single else torch.stack(arrays, dim=1)


def _numbers(values: Any, column: str, file: TableFile, first: int) -> np.ndarray[Any, Any]:
    """Return a column as an array of numbers, the sizes of its lists as further dimensions."""
    import pyarrow

    shape = [len(values)]
    row_size = 1
    while True:
        if values.null_count:
            null = values.is_null().to_numpy(zero_copy_only=False).argmax()
            raise DataError(
                f"column {column!r} holds a null",
                where=f"row {first + int(null) // row_size} of {file.path}",
                got=f"{values.null_count} in this block",
                expected="a number in every row",
                do="drop those rows or fill the gaps before training",
            )
        if not pyarrow.types.is_fixed_size_list(values.type):
            break
        shape.append(values.type.list_size)
        row_size *= values.type.list_size
        values = values.flatten()
    found: np.ndarray[Any, Any] = values.to_numpy(zero_copy_only=False).reshape(shape)
    # Arrow's memory is read-only, and a mapped file's: what is kept is a copy.
    return found.copy()


def _joined(pairs: Sequence[Pair]) -> Pair:
    if len(pairs) == 1:
        return pairs[0]
    inputs, targets = zip(*pairs, strict=True)
    return torch.cat(inputs), torch.cat(targets)
