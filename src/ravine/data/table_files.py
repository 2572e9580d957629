"""Files of columns, read block by block: row groups of Parquet, record batches of Arrow."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ravine.errors import ArgumentTypeError, DataError, unknown_name

Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class TableFile(Protocol):
    """One file of columns.

    Attributes:
        path: the file.
        sizes: rows of each block.
    """

    path: Path
    sizes: list[int]

    def types(self) -> dict[str, Any]:
        """Return the Arrow type of every column."""

    def read(self, block: int, columns: Sequence[str]) -> Any:
        """Return some columns of a block as an Arrow table."""


class ParquetFile:
    """A Parquet file; its footer tells the sizes, a row group is read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            footer = file.metadata
            self.sizes = [footer.row_group(k).num_rows for k in range(footer.num_row_groups)]
            self._types = {field.name: field.type for field in file.schema_arrow}

    def types(self) -> dict[str, Any]:
        """Return the Arrow type of every column."""
        return self._types

    def read(self, block: int, columns: Sequence[str]) -> Any:
        """Return some columns of a row group as an Arrow table."""
        with self._opened() as file:
            return file.read_row_group(block, columns=list(columns), use_threads=False)

    def _opened(self) -> Any:
        import pyarrow.parquet

        # Not memory-mapped: pages that were read once would count as this process's memory.
        return pyarrow.parquet.ParquetFile(self.path, pre_buffer=False)


class ArrowFile:
    """An Arrow IPC file (Feather), memory-mapped: a record batch is read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._mapped() as mapped:
            schema = _ipc().open_file(mapped).schema
            self._types = {field.name: field.type for field in schema}
            # Of compressed columns one has to be read to know its length: the first will do.
            options = _ipc().IpcReadOptions(included_fields=[0])
            batches = _ipc().open_file(mapped, options=options)
            self.sizes = [batches.get_batch(k).num_rows for k in range(batches.num_record_batches)]

    def types(self) -> dict[str, Any]:
        """Return the Arrow type of every column."""
        return self._types

    def read(self, block: int, columns: Sequence[str]) -> Any:
        """Return some columns of a record batch as an Arrow table."""
        import pyarrow

        places = [list(self._types).index(name) for name in columns]
        with self._mapped() as mapped:
            options = _ipc().IpcReadOptions(included_fields=places, use_threads=False)
            batch = _ipc().open_file(mapped, options=options).get_batch(block)
            return pyarrow.Table.from_batches([batch]).select(list(columns))

    def _mapped(self) -> Any:
        import pyarrow

        return pyarrow.memory_map(str(self.path))


def open_files(paths: Paths) -> list[TableFile]:
    """Open files in the order given, those of a pattern in the order of their names.

    Raises:
        DataError: there is no such file, or it is neither Parquet nor an Arrow IPC file.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            "Parquet and Arrow files are read by pyarrow, which is not installed",
            do="pip install 'ravine[data]'",
        ) from error
    files: list[TableFile] = []
    for path in _named(paths):
        try:
            with path.open("rb") as file:
                begins = file.read(6)
            if begins[:4] == b"PAR1":
                files.append(ParquetFile(path))
                continue
            if begins == b"ARROW1":
                files.append(ArrowFile(path))
                continue
            got = f"a file that begins with {begins!r}"
        except (OSError, pyarrow.ArrowException) as error:
            got = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(
            "the file cannot be read as a table",
            where=str(path),
            got=got,
            expected="a Parquet file or an Arrow IPC (Feather) file",
            do="a folder is named by its files: folder/*.parquet" if path.is_dir() else "",
        )
    return files


def check_columns(files: Sequence[TableFile], columns: Sequence[str]) -> None:
    """Raise if a column is not in every file, or has another type than in the first."""
    wanted = files[0].types()
    for file in files:
        types = file.types()
        for name in columns:
            if name not in types:
                raise unknown_name("column", name, types, where=str(file.path))
            if types[name] != wanted[name]:
                raise DataError(
                    f"column {name!r} has another type than in the first file",
                    where=str(file.path),
                    got=str(types[name]),
                    expected=f"{wanted[name]}, as in {files[0].path}",
                    do="write all files with one schema",
                )


def _named(paths: Paths) -> list[Path]:
    if isinstance(paths, str | os.PathLike):
        pattern = os.fspath(paths)
        if not glob.has_magic(pattern) or Path(pattern).exists():
            return [Path(pattern)]
        # Path.glob takes no pattern that begins at the root.
        found = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207
        if not found:
            raise DataError(
                "no file has such a name",
                where=pattern,
                expected="one file at least that fits the pattern",
                do="look at the path; it is taken from the folder in which Python runs",
            )
        return found
    named = list(paths)
    if not named or not all(isinstance(path, str | os.PathLike) for path in named):
        raise ArgumentTypeError(
            "the files of the table are not paths",
            got=repr(paths),
            expected="a path, a pattern such as 'rows/*.parquet', or a list of paths",
        )
    return [Path(path) for path in named]


def _ipc() -> Any:
    import pyarrow.ipc

    return pyarrow.ipc
