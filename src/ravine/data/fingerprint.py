"""What data is, in a few words that can be compared later: shape, type, size, checksum.

Up to `WHOLE` bytes every byte counts. Of what is larger, `BLOCKS` pieces of `BLOCK` bytes count, the
first, the last, and those at even distances between: what is longer, shorter, reordered or made
anew is seen, a change inside of a piece that was not read is not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["of_array", "of_files", "of_values"]

WHOLE, BLOCK, BLOCKS = 16 << 20, 1 << 16, 64
"""4 MB of a large file are read: 3 ms from memory, half a second from a disk that turns."""


def of_array(array: np.ndarray[Any, Any] | Tensor) -> dict[str, Any]:
    """Return shape, dtype and checksum of an array with rows in the first dimension.

    >>> of_array(np.zeros((3, 2), np.float32))["shape"]
    [3, 2]
    """
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype).removeprefix("torch."),
        "sha256": _digest(_bytes(piece) for piece in _pieces(array)),
    }


def of_values(tensor: Tensor) -> dict[str, Any]:
    """Return what `of_array` does, and of computed numbers what rounding does not change.

    Inputs that a task scales by a mean differ in their last bits from one machine to the next.
    ``norm`` and ``mark`` (the sum of the values times cosines of their places) move by that little
    then, and by much more where the rows are others, or in another order.
    """
    facts = of_array(tensor)
    if tensor.is_floating_point():
        norm = mark = 0.0
        place = 0
        for piece in _pieces(tensor):
            values = piece.detach().cpu().double().flatten()
            signs = torch.arange(place, place + len(values), dtype=torch.float64).cos()
            norm += float(values.square().sum())
            mark += float(values @ signs)
            place += len(values)
        facts |= {"norm": math.sqrt(norm), "mark": mark}
    return facts


def of_files(paths: Sequence[Path]) -> dict[str, Any]:
    """Return number, size and checksum of files, which count as one in their order.

    Their names do not count: files may be moved.

    Raises:
        OSError: one of them cannot be read.
    """
    sizes = [path.stat().st_size for path in paths]
    return {
        "files": len(paths),
        "bytes": sum(sizes),
        "sha256": _digest([np.array(sizes, "<i8").tobytes(), *_read(paths, sizes)]),
    }


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(array: Any) -> Iterator[Any]:
    """Return the rows that count, a block of them at a time."""
    rows = len(array)
    row_bytes = max(array[:1].nbytes, 1)
    size = max(BLOCK // row_bytes, 1)
    if rows * row_bytes <= WHOLE:
        starts = list(range(0, rows, size))
    else:
        count = max(min(BLOCKS, BLOCK * BLOCKS // row_bytes), 2)  # of rows as large as files few
        starts = np.linspace(0, max(rows - size, 0), count).astype(int).tolist()
    for start in starts:
        yield array[start : start + size]


def _bytes(piece: np.ndarray[Any, Any] | Tensor) -> bytes:
    if isinstance(piece, Tensor):
        # As bytes: NumPy has no bfloat16.
        plain = piece.detach().cpu().resolve_conj().resolve_neg().contiguous()
        return plain.flatten().view(torch.uint8).numpy().tobytes()
    return np.ascontiguousarray(piece).tobytes()


def _read(paths: Sequence[Path], sizes: Sequence[int]) -> Iterator[bytes]:
    total = sum(sizes)
    if total <= WHOLE:
        for path in paths:
            yield path.read_bytes()
        return
    begins = np.cumsum([0, *sizes])
    for place in np.linspace(0, total - BLOCK, BLOCKS).astype(int).tolist():
        number = int(np.searchsorted(begins, place, side="right")) - 1
        with paths[number].open("rb") as file:
            file.seek(place - int(begins[number]))
            yield file.read(BLOCK)
