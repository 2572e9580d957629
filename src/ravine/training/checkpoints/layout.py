"""Where in the files of a checkpoint the tensors lie, and reading slices of them.

``layout.json`` says of each tensor that was divided its shape and its chunks: the number of the file
that holds it (one file a process), where it begins in the whole, its sizes. No file is named there,
so none outside of the folder can be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ravine.errors import CheckpointError
from ravine.training.devices import Place, Slices

__all__ = ["LAYOUT", "MOST", "TENSORS", "Chunk", "Filed", "file_of", "spelled", "whole_and_divided"]

LAYOUT, TENSORS = "layout.json", "tensors.safetensors"
MOST = 10_000
"""Processes that a checkpoint may be of."""

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""The types by their names in a safetensors file."""


def file_of(number: int, count: int) -> str:
    """Return the name of a process's file.

    >>> file_of(1, 4)
    'tensors-00001-of-00004.safetensors'
    """
    return f"tensors-{number:05d}-of-{count:05d}.safetensors"


class Chunk(NamedTuple):
    """A box of a tensor: in which file, where it begins in the whole, its sizes."""

    file: str
    offsets: Place
    sizes: Place


class Files:
    """The safetensors files of a folder, each opened when it is first read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[str, Any] = {}

    def __reduce__(self) -> Any:  # to another process: what is open stays here
        return Files, (self.folder,)

    def opened(self, name: str) -> Any:
        """Return safetensors' handle of a file."""
        from safetensors import safe_open

        if name not in self._opened:
            self._opened[name] = safe_open(str(self.folder / name), framework="pt")
        return self._opened[name]

    def heads(self, name: str) -> dict[str, tuple[str, Place]]:
        """Return type and sizes of every tensor in a file."""
        found = self.opened(name)
        slices = {key: found.get_slice(key) for key in found.keys()}  # noqa: SIM118 (no mapping)
        return {key: (one.get_dtype(), tuple(one.get_shape())) for key, one in slices.items()}


@dataclass(frozen=True)
class Filed(Slices):
    """A tensor in files, of which slices are read when they are asked for."""

    files: Files
    name: str
    dtype: torch.dtype
    shape: Place
    chunks: tuple[Chunk, ...]

    def read(self, offsets: Place, sizes: Place) -> Tensor:
        from safetensors import SafetensorError

        try:
            found = torch.empty(sizes, dtype=self.dtype)
            for chunk in self.chunks:
                if chunk[1:] == (offsets, sizes):
                    return self._piece(chunk, ())
                begin = [max(a, b) for a, b in zip(offsets, chunk.offsets, strict=True)]
                ends = zip(offsets, sizes, chunk.offsets, chunk.sizes, strict=True)
                end = [min(a + n, b + m) for a, n, b, m in ends]
                if all(a < b for a, b in zip(begin, end, strict=True)):
                    piece = self._piece(chunk, _slices(begin, end, chunk.offsets))
                    found[_slices(begin, end, offsets)] = piece
        except (OSError, SafetensorError) as error:  # it was whole a moment ago
            raise CheckpointError(
                "a checkpoint can no longer be read",
                where=str(self.files.folder),
                got=f"{type(error).__name__}: {error}",
                do="resume once more; what is damaged is passed over",
            ) from error
        return found

    def alone(self) -> Tensor:
        return self.read((0,) * len(self.shape), self.shape)

    def _piece(self, chunk: Chunk, where: tuple[slice, ...]) -> Tensor:
        file = self.files.opened(chunk.file)
        found: Tensor = file.get_slice(self.name)[where] if where else file.get_tensor(self.name)
        return found


def _slices(begin: Sequence[int], end: Sequence[int], origin: Place) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(begin, end, origin, strict=True))


def spelled(
    tensors: Mapping[str, tuple[torch.dtype, Place, Sequence[tuple[int, Place, Place]]]],
) -> str:
    """Return the text of a layout: type, shape and chunks (number of the file, offsets, sizes).

    Raises:
        ValueError: a type has no name in a file.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    told = {}
    for name, (dtype, shape, chunks) in tensors.items():
        if dtype not in names:
            raise ValueError(f"{name} is of {dtype}, which has no form in a checkpoint")
        boxes = [{"file": k, "offsets": list(o), "sizes": list(s)} for k, o, s in chunks]
        told[name] = {"dtype": names[dtype], "shape": list(shape), "chunks": boxes}
    return json.dumps({"tensors": told})


def whole_and_divided(folder: Path, count: int) -> dict[str, Filed]:
    """Return the tensors of a checkpoint, of which nothing is read yet.

    Args:
        folder: its files are what was written.
        count: how many files hold parts of divided tensors.

    Raises:
        ValueError: the layout is not that of these files.
        KeyError, TypeError: it is no layout.
    """
    files = Files(folder)
    found = {
        name: Filed(files, name, DTYPES[dtype], shape, (Chunk(TENSORS, (0,) * len(shape), shape),))
        for name, (dtype, shape) in files.heads(TENSORS).items()
    }
    if not count:
        return found
    told = json.loads((folder / LAYOUT).read_text(encoding="utf-8"))["tensors"]
    heads = {k: files.heads(file_of(k, count)) for k in range(1, count + 1)}
    for name, one in told.items():
        if name in found:
            raise ValueError(f"{name} is there twice")
        try:
            found[name] = _checked(files, name, one, heads)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _checked(
    files: Files, name: str, told: Any, heads: Mapping[int, Mapping[str, tuple[str, Place]]]
) -> Filed:
    shape, chunks = _place(told["shape"]), []
    for box in told["chunks"]:
        number, offsets, sizes = box["file"], _place(box["offsets"]), _place(box["sizes"])
        if type(number) is not int or number not in heads:
            raise ValueError(f"it lies in file {number!r} of {len(heads)}")
        inside = len(offsets) == len(sizes) == len(shape) and all(
            0 < n <= whole - a for a, n, whole in zip(offsets, sizes, shape, strict=True)
        )
        if not inside:
            raise ValueError(f"a chunk of {sizes} at {offsets} is not inside of {shape}")
        if heads[number].get(name) != (told["dtype"], sizes):
            got = heads[number].get(name, "nothing")
            raise ValueError(f"file {number} holds {got}, not {told['dtype']} of {sizes}")
        chunks.append(Chunk(file_of(number, len(heads)), offsets, sizes))
    if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(shape):
        raise ValueError(f"its chunks have not as many values as {shape}")
    if _overlap(chunks):
        raise ValueError("its chunks overlap")
    return Filed(files, name, DTYPES[told["dtype"]], shape, tuple(chunks))


def _place(told: Any) -> Place:
    if not isinstance(told, list) or not all(type(n) is int and n >= 0 for n in told):
        raise ValueError(f"{told!r} is no list of sizes or offsets")
    return tuple(told)


def _overlap(chunks: Iterable[Chunk]) -> bool:
    """Whether two of the boxes have a value in common."""
    chunks = list(chunks)
    if len(chunks) < 2:
        return False
    # Along the dimension in which they are divided most, each is compared with few others.
    among = [len({chunk.offsets[d] for chunk in chunks}) for d in range(len(chunks[0].sizes))]
    axis = among.index(max(among))
    near: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda one: one.offsets[axis]):
        start = chunk.offsets[axis]
        near = [one for one in near if one.offsets[axis] + one.sizes[axis] > start]
        if any(_meet(one, chunk) for one in near):
            return True
        near.append(chunk)
    return False


def _meet(one: Chunk, other: Chunk) -> bool:
    edges = zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in edges)
