"""Runs Python programs, each in a process of its own that begins with torch imported.

A new interpreter takes 1.5 s of processor time to import torch and as much again for what a command
imports besides. The processes here are forked from one that has done so (`program_server.py`); they
are processes all the same, to be killed, interrupted and waited for. What is tested about the start
itself (what is imported, what is warned of) belongs to `subprocess`.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any, Self

TIME_LIMIT = 120.0


class Program:
    """A process that runs ``python *words``, as `subprocess.Popen` with text has it.

    Attributes:
        pid: its number.
        stdin, stdout, stderr: streams of text where PIPE was asked for, None otherwise.
        returncode: how it ended (minus the signal that killed it), None before that is known.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path | str = ".",
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] = DEVNULL,
        stdout: int | IO[Any] = PIPE,
        stderr: int | IO[Any] = PIPE,
    ) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(_place())
        self.returncode: int | None = None
        pairs = [
            _ends(asked, written=number == 0)
            for number, asked in enumerate((stdin, stdout, stderr))
        ]
        (self.stdin, self.stdout, self.stderr), theirs, opened = zip(*pairs, strict=True)
        words = [os.fspath(word) for word in words]
        environment = dict(os.environ if env is None else env)
        wanted = {"words": words, "folder": str(Path(cwd).absolute()), "environment": environment}
        text = json.dumps(wanted).encode() + b"\n"
        sent = socket.send_fds(self._server, [text], theirs)
        self._server.sendall(text[sent:])
        for number in itertools.compress(theirs, opened):
            os.close(number)
        self._answers = self._server.makefile("r")
        self.pid = int(self._answers.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.returncode is None:
            self.kill()
            self.wait()
        for stream in (self.stdin, self.stdout, self.stderr, self._answers, self._server):
            if stream is not None:
                stream.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return how it ended, None if it has not."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float = TIME_LIMIT) -> int:
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a program", timeout)
            self.returncode = int(self._answers.readline())
        return self.returncode

    def communicate(self, said: str = "", timeout: float = TIME_LIMIT) -> tuple[str, str]:
        """Say something, read all that it writes, and wait for its end."""
        found = {}

        def read(name: str, stream: IO[str]) -> None:
            found[name] = stream.read()

        readers = [
            threading.Thread(target=read, args=(name, stream), daemon=True)
            for name, stream in (("out", self.stdout), ("err", self.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        if self.stdin is not None:
            self.stdin.write(said)
            self.stdin.close()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("a program", timeout)
        self.wait(timeout)
        return found.get("out", ""), found.get("err", "")


def _ends(asked: int | IO[Any], *, written: bool) -> tuple[IO[str] | None, int, bool]:
    """Return our end of a stream if there is one, theirs, and whether it was opened here."""
    if asked == PIPE:
        read, write = os.pipe()
        if written:
            return os.fdopen(write, "w", encoding="utf-8"), read, True
        return os.fdopen(read, "r", encoding="utf-8"), write, True
    if asked == DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR), True
    return None, asked if isinstance(asked, int) else asked.fileno(), False


def run(
    words: Sequence[str],
    *,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    timeout: float = TIME_LIMIT,
    check: bool = False,
    **streams: Any,
) -> subprocess.CompletedProcess[str]:
    """Run ``python *words`` to its end, as `subprocess.run` does with captured text."""
    with Program(words, cwd=cwd, env=env, **streams) as program:
        out, err = program.communicate(timeout=timeout)
        assert program.returncode is not None
        done = subprocess.CompletedProcess(words, program.returncode, out, err)
    if check:
        assert done.returncode == 0, done.stderr
    return done


@cache
def _place() -> str:
    """Start the server of this process; return its socket."""
    place = str(Path(tempfile.mkdtemp(prefix="programs-")) / "socket")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("program_server.py")), place],
        stdin=PIPE,
        stdout=PIPE,
        # Threads do not outlive a fork.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    atexit.register(_end, server, Path(place).parent)
    return place


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.communicate()  # closes its standard input
    shutil.rmtree(folder)
