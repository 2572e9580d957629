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
from ravine.training.checkpoints.layout import (
    LAYOUT,
    MOST,
    TENSORS,
    Filed,
    file_of,
    whole_and_divided,
)

MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = 1
LONGEST = 200 * (MOST + 5)
"""Bytes of a manifest that are read, 200 for a file; what is longer was not written here."""

Facts = dict[str, Any]
"""Of a file: its bytes and their SHA-256."""


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

    try:
        begin(folder)
        finish(folder, plain, tensors, {})
    except (OSError, SafetensorError, ValueError) as error:
        drop(folder)
        raise unwritten(folder, f"{type(error).__name__}: {error}") from error


def part_of(folder: Path) -> Path:
    """Return where a checkpoint is while it is written."""
    return folder.with_name(folder.name + ".part")


def begin(folder: Path) -> None:
    """Make the empty folder that a checkpoint is written in."""
    part = part_of(folder)
    if part.exists():  # left by a process that was killed
        shutil.rmtree(part)
    # Not with parents: where the run directory was taken away nothing is to be made anew.
    part.parent.mkdir(exist_ok=True)
    part.mkdir()


def finish(folder: Path, plain: Any, tensors: dict[str, Tensor], others: dict[str, Facts]) -> None:
    """Write what one process writes, then the manifest, and give the folder its name.

    Args:
        folder: what `begin` was given.
        plain, tensors: see `write_checkpoint`.
        others: the files that are there already, on the disk.
    """
    from safetensors.torch import save_file

    part = part_of(folder)
    save_file(tensors, str(part / TENSORS))
    (part / STATE).write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
    files = {name: facts(part / name) for name in (STATE, TENSORS)} | others
    (part / MANIFEST).write_text(_spelled(files), encoding="utf-8")
    for name in (STATE, TENSORS, MANIFEST):
        flush(part / name)
    flush(part)
    part.rename(folder)
    flush(folder.parent)


def drop(folder: Path) -> None:
    """Take away what was begun."""
    shutil.rmtree(part_of(folder), ignore_errors=True)


def unwritten(folder: Path, got: str) -> CheckpointError:
    """Return the error of a checkpoint that cannot be written."""
    return CheckpointError(
        "the checkpoint cannot be written",
        where=str(folder),
        got=got,
        do="make room, or name another folder; the checkpoints before it are untouched",
    )


def read_checkpoint(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return what `write_checkpoint` was given; runs no code of the files.

    Raises:
        DamageError: a file is missing or is not, to the bit, what was written.
    """
    files = manifest(folder)
    check_files(folder, files)
    plain, tensors = opened(folder, files)
    return plain, {name: value.alone() for name, value in tensors.items()}


def check_files(folder: Path, files: dict[str, Facts]) -> None:
    """Raise `DamageError` unless these files are, to the bit, what was written."""
    for name, expected in files.items():
        try:
            found = facts(folder / name)
        except OSError as error:
            raise DamageError(name, error.strerror or str(error)) from error
        if found != expected:
            size = f"{found['bytes']} bytes of {expected['bytes']}"
            same = found["bytes"] == expected["bytes"]
            raise DamageError(name, "its checksum is another than that written" if same else size)


def opened(folder: Path, files: dict[str, Facts]) -> tuple[Any, dict[str, Filed]]:
    """Return the plain part of a checkpoint whose files were checked, and its tensors, not yet read.

    Raises:
        DamageError: what the files say does not go together.
    """
    from safetensors import SafetensorError

    name = STATE
    try:
        plain = json.loads((folder / STATE).read_text(encoding="utf-8"))
        name = LAYOUT if LAYOUT in files else TENSORS
        return plain, whole_and_divided(folder, _count(files))
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError, RecursionError,
    ) as error:  # fmt: skip
        raise DamageError(name, f"{type(error).__name__}: {error}") from error


def manifest(folder: Path) -> dict[str, Facts]:
    """Return the files of a checkpoint, with what they were when they were written.

    Raises:
        DamageError: the manifest is missing, or damaged.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(LONGEST).decode("utf-8")
        files = json.loads(text)["files"]
        if text != _spelled(files):
            raise ValueError("it is not spelled as it was written")
        count = _count(files)
        parts = {LAYOUT, *(file_of(k, count) for k in range(1, count + 1))} if count else set()
        if set(files) != {STATE, TENSORS} | parts:
            raise ValueError("it lists other files than a checkpoint has")
    except OSError as error:
        raise DamageError(MANIFEST, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError(MANIFEST, f"damaged ({error})") from error
    return files  # type: ignore[no-any-return]


def _count(files: dict[str, Any]) -> int:
    """Return of how many processes the files hold parts."""
    return max(0, len(files) - 3) if LAYOUT in files else 0


def _spelled(files: dict[str, Any]) -> str:
    body = json.dumps({"format": FORMAT, "files": files}, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps(
        {"format": FORMAT, "files": files, "sha256": digest}, sort_keys=True, indent=1
    )


def facts(path: Path) -> Facts:
    """Return bytes and checksum of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def flush(path: Path) -> None:
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
