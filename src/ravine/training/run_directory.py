"""The files of a run: what was asked for, its history as it grows, its weights, its page."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ravine.errors import RunDirectoryError
from ravine.report import to_strict_json
from ravine.training.lines import STEPS, add_line
from ravine.training.record import Record

CONFIG, HISTORY, RECORD = "config.json", "history.jsonl", "record.json"
WEIGHTS, PAGE = "model.safetensors", "report.html"
CHECKPOINTS, BEST, POINTS, LOCK = "checkpoints", "best", "rollback", ".lock"
FILES = (CONFIG, HISTORY, STEPS, RECORD, WEIGHTS, PAGE, CHECKPOINTS, BEST)

_ROOM = "make room or name another folder; what was written before is untouched"


class RunDirectory:
    """Writes the files of one run; each is whole or not there.

    Raises:
        RunDirectoryError: the folder cannot be written, or holds another run.
    """

    def __init__(self, path: Path) -> None:
        if not (path / LOCK).exists():  # a folder that is not ours gets no lock
            self._refuse_taken(path)
        self._open(path)
        try:
            self._refuse_taken(path)  # another process may have begun in between
        except RunDirectoryError:
            self.close()
            raise

    @classmethod
    def reopened(cls, path: Path) -> RunDirectory:
        """Return the directory of a run that goes on; nothing in it is changed by that."""
        directory = cls.__new__(cls)
        directory._open(path)
        directory._made = []
        return directory

    @staticmethod
    def _refuse_taken(path: Path) -> None:
        taken = [name for name in FILES if (path / name).exists()]
        if taken:
            raise RunDirectoryError(
                "the run directory holds another run",
                where=str(path),
                got=", ".join(taken),
                expected="a new or empty folder, so that no result is lost",
                do=f"go on with it (--resume {path}; in Python resume={str(path)!r}), name another one, "
                "or move this one away",
            )

    def _open(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []
        self._lock = FileLock(path / LOCK, timeout=0)
        try:
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            self._lock.acquire()
        except Timeout as error:
            raise RunDirectoryError(
                "another process is writing this run",
                where=str(path),
                expected="one process a run directory",
                do="wait until it has ended, or name another folder",
            ) from error
        except OSError as error:
            raise _failed("the run directory cannot be made", path, error) from error

    def close(self) -> None:
        """Let other processes have the directory."""
        # The lock's file stays: who takes it away may take away a lock that another just got.
        self._lock.release()

    def start(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        data: Mapping[str, Any],
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Write what was asked for, on what it runs, what the data is, and the history so far."""
        self._write(CONFIG, _pretty({"config": config, "environment": environment, "data": data}))
        self.rewrite(history)

    def rewrite(self, history: Sequence[dict[str, Any]]) -> None:
        """Write the whole history."""
        self._write(HISTORY, "".join(to_strict_json(row) + "\n" for row in history))

    def add_row(self, row: dict[str, Any]) -> None:
        """Add an epoch to the history; what fails leaves no part of a line behind."""
        add_line(self.path / HISTORY, row)

    def finish(self, record: Record) -> None:
        """Write the record, the page and the weights; one that fails does not keep the others."""
        if not self.path.is_dir():  # what writes a page makes the folders for it
            raise RunDirectoryError(
                "the run directory is gone",
                where=str(self.path),
                do="look for what moved or took it away; the record has what was reached",
            )
        failed: RunDirectoryError | None = None
        for write in (self._write_record, self._write_page, self._write_weights):
            try:
                write(record)
            except RunDirectoryError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def abandon(self) -> None:
        """Take away the files, and the folders made for them, of a run that never began."""
        with contextlib.suppress(OSError):
            for name in FILES:
                if name not in (CHECKPOINTS, BEST):
                    (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / POINTS, ignore_errors=True)  # the start, before any step
            (self.path / LOCK).unlink(missing_ok=True)
            self.close()
            for folder in self._made:
                folder.rmdir()

    def _write_record(self, record: Record) -> None:
        self._write(RECORD, _pretty(record.to_json()))

    def _write_page(self, record: Record) -> None:
        record.report(self.path / PAGE)

    def _write_weights(self, record: Record) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_model

        path = self.path / WEIGHTS
        part = self.path / (WEIGHTS + ".part")
        try:
            save_model(record.model, str(part))
            part.replace(path)
        except (OSError, SafetensorError) as error:  # its own for a full disk
            raise _failed("the weights cannot be written", path, error) from error
        except Exception as error:
            do = "the rest of the run is written; save the record's model in another way"
            raise _failed("the weights have no form in safetensors", path, error, do) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        part = self.path / (name + ".part")
        try:
            with part.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise _failed("a file of the run cannot be written", self.path / name, error) from error


def _pretty(value: Any) -> str:
    return to_strict_json(value, indent=2) + "\n"


def _failed(what: str, path: Path, error: Exception, do: str = _ROOM) -> RunDirectoryError:
    return RunDirectoryError(what, where=str(path), got=f"{type(error).__name__}: {error}", do=do)
