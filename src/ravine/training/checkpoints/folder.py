"""One checkpoint: a folder with its files and a manifest of their checksums.

It is written beside, under a name that no reader takes, flushed to the disk file by file, and
renamed when it is whole. The manifest is written last and has exactly one spelling, so that a
changed bit is noticed in it as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ravine.errors import CheckpointError

MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
FORMAT = 1
LONGEST = 10_000
"""Bytes of a manifest that are read; what is longer was not written here."""


class Position(NamedTuple):
    """Where a run stands: updates made, epochs completed."""

    step: int
    epoch: int

    @property
    def name(self) -> str:
        """The folder's name; names in order are positions in order.

        >>> Position(120, 3).name
        'step-0000000120-epoch-000003'
        """
        return f"step-{self.step:010d}-epoch-{self.epoch:06d}"

    @classmethod
    def named(cls, name: str) -> Position | None:
        """Return the position of a folder's name, None for a name of another kind."""
        found = re.fullmatch(r"step-(\d{10,})-epoch-(\d{6,})", name)
        return cls(int(found[1]), int(found[2])) if found else None


class DamageError(Exception):
    """Why a folder is no whole checkpoint: which file, and what is wrong with it."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file}: {what}")


def write_checkpoint(folder: Path, plain: Any, tensors: dict[str, Tensor]) -> None:
    """Write a state as the folder, which does not exist before and is whole after.

    Raises:
        CheckpointError: it cannot be written; what was begun is taken away.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = folder.with_name(folder.name + ".part")
    try:
        if part.exists():  # left by a process that was killed
            shutil.rmtree(part)
        # Not with parents: where the run directory was taken away nothing is to be made anew.
        part.parent.mkdir(exist_ok=True)
        part.mkdir()
        save_file(tensors, str(part / TENSORS))
        (part / STATE).write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
        files = {name: _facts(part / name) for name in (STATE, TENSORS)}
        (part / MANIFEST).write_text(_spelled(files), encoding="utf-8")
        for name in (STATE, TENSORS, MANIFEST):
            _flush(part / name)
        _flush(part)
        part.rename(folder)
        _flush(folder.parent)
    except (OSError, SafetensorError, ValueError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            "the checkpoint cannot be written",
            where=str(folder),
            got=f"{type(error).__name__}: {error}",
            do="make room, or name another folder; the checkpoints before it are untouched",
        ) from error


def read_checkpoint(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return what `write_checkpoint` was given; runs no code of the files.

    Raises:
        DamageError: a file is missing or is not, to the bit, what was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name, facts in _manifest(folder).items():
        try:
            found = _facts(folder / name)
        except OSError as error:
            raise DamageError(name, error.strerror or str(error)) from error
        if found != facts:
            size = f"{found['bytes']} bytes of {facts['bytes']}"
            same = found["bytes"] == facts["bytes"]
            raise DamageError(name, "its checksum is another than that written" if same else size)
    try:
        tensors = load_file(str(folder / TENSORS))
        return json.loads((folder / STATE).read_text(encoding="utf-8")), tensors
    except (OSError, ValueError, SafetensorError, RecursionError) as error:
        raise DamageError(folder.name, f"{type(error).__name__}: {error}") from error


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(LONGEST).decode("utf-8")
        read = json.loads(text)
        files = read["files"]
        if text != _spelled(files):
            raise ValueError("it is not spelled as it was written")
        if set(files) != {STATE, TENSORS}:
            raise ValueError("it lists other files than a checkpoint has")
    except OSError as error:
        raise DamageError(MANIFEST, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError(MANIFEST, f"damaged ({error})") from error
    return files  # type: ignore[no-any-return]


def _spelled(files: dict[str, Any]) -> str:
    body = json.dumps({"format": FORMAT, "files": files}, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps(
        {"format": FORMAT, "files": files, "sha256": digest}, sort_keys=True, indent=1
    )


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _flush(path: Path) -> None:
    """Wait until the file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # a folder cannot be flushed there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems cannot; a rename there is as safe as they make it.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
