"""Windows of the characters of a text file."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.rows import RowSource
from ravine.data.source import Pair
from ravine.data.tokens import check_length, windows_of
from ravine.errors import DataError

_CHUNK = 1 << 18
"""Bytes that are read at a time when the file is looked through."""

_CODE_POINTS = 0x110000


class Characters(RowSource):
    """Windows of a text file as numbers of characters, and the characters one place ahead.

    The file is UTF-8 and is looked through once, piece by piece, for its alphabet and for where each
    window begins (8 bytes a window are kept); windows are then read from the file. It is not
    memory-mapped: its pages would count as memory of this process. Nothing is written.

    Row i has as input the characters from ``i * length`` on, as target those one place ahead, both
    int64 (length,).

    Args:
        path: the text file.
        length: characters of a window.

    Attributes:
        alphabet: the characters that occur, in the order of their code points; a character's number
            is its place there.
        characters: how many characters the file has.
        sha256: of the file's bytes.

    Raises:
        DataError: the file cannot be read, is not UTF-8 (with the place), or is too short.

    Windows share no target: any of them may be split off for validation (`select`).

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("abcabcab"), file.flush()
    ...     text = Characters(file.name, length=3)
    ...     text.alphabet, len(text), text.take(torch.tensor([1]))
    ('abc', 2, (tensor([[0, 1, 2]]), tensor([[1, 2, 0]])))
    """

    def __init__(self, path: str | os.PathLike[str], length: int) -> None:
        check_length(length)
        self.path = Path(path)
        self.length = length
        starts = self._look_through()
        self._rows = windows_of(self.characters, length, "characters", str(path))
        self._starts = starts[: self._rows + 1]

    def __len__(self) -> int:
        return self._rows

    def take(self, rows: Tensor) -> Pair:
        """Return windows by number: inputs and targets, int64 (len(rows), length)."""
        length = self.length + 1
        chosen = rows.numpy()
        first, last = (self._starts[one].tolist() for one in (chosen, chosen + 1))
        windows = []
        with self._reading(), self.path.open("rb", buffering=0) as file:
            for begin, end in zip(first, last, strict=True):
                file.seek(begin)
                # The last target is the character after the window: at most 4 bytes.
                window = file.read(end + 4 - begin).decode(errors="ignore")[:length]
                if len(window) != length:
                    raise self._changed(begin)
                windows.append(window)
        points = np.frombuffer("".join(windows).encode("utf-32-le"), "<u4")
        codes = self._numbers[points].astype(np.int64).reshape(len(rows), length)
        strange = (codes < 0).any(axis=1)
        if strange.any():
            raise self._changed(first[int(strange.argmax())])
        taken = torch.from_numpy(codes)
        return taken[:, :-1], taken[:, 1:]

    def fingerprint(self) -> dict[str, Any]:
        """Return the text's length and checksum, of every byte, and the length of a window."""
        return {"characters": self.characters, "sha256": self.sha256, "length": self.length}

    def _look_through(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Find alphabet, length and hash; return the byte at which each window begins."""
        seen = np.zeros(_CODE_POINTS, bool)
        hashed = hashlib.sha256()
        starts: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        decoder = codecs.getincrementaldecoder("utf-8")()
        at = count = 0
        with self._reading(), self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self._see(decoder, chunk, at, seen)
                hashed.update(chunk)
                # Bytes 10xxxxxx go on with a character, all others begin one.
                begins = np.flatnonzero(np.frombuffer(chunk, np.uint8) & 0xC0 != 0x80)
                starts.append(begins[-count % self.length :: self.length] + at)
                count += len(begins)
                at += len(chunk)
        self._see(decoder, b"", at, seen)
        points = np.flatnonzero(seen)
        self._numbers = np.full(_CODE_POINTS, -1, np.int32)
        self._numbers[points] = np.arange(len(points))
        self.alphabet = "".join(map(chr, points.tolist()))
        self.characters = count
        self.sha256 = hashed.hexdigest()
        return np.concatenate([np.empty(0, np.int64), *starts])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                "the text cannot be read",
                where=str(self.path),
                got=str(error.strerror),
                do="look at the path and its permissions",
            ) from error

    def _changed(self, place: int) -> DataError:
        return DataError(
            "the text has changed since it was looked through",
            where=f"{self.path}, byte {place}",
            got="characters that were not there",
            expected=f"the file with sha256 {self.sha256}",
            do="begin a new run",
        )

    def _see(
        self,
        decoder: codecs.IncrementalDecoder,
        chunk: bytes,
        at: int,
        seen: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ) -> None:
        """Mark the characters of a chunk that begins at a byte of the file."""
        held = len(decoder.getstate()[0])  # the beginning of a character at the last chunk's end
        try:
            written = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise DataError(
                "the text is not UTF-8",
                where=f"{self.path}, byte {at - held + error.start}",
                got=f"0x{error.object[error.start]:02x}: {error.reason}",
                do="convert it: iconv -f latin1 -t utf-8",
            ) from error
        seen[np.frombuffer(written.encode("utf-32-le"), "<u4")] = True
