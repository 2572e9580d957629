"""Forks a process for each program that a test runs, from one that has imported torch already.

The first argument is the socket that it listens at. It ends when its standard input is closed, which
is when the tests end. `programs.py` is its other side.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import types
import warnings
from typing import Any

# What a command of Ravine imports sooner or later. llvmlite and Triton are left out: whether they are
# imported is tested.
IMPORTED = (
    "torch", "sklearn.datasets", "pandas", "plotly.graph_objects", "jinja2",
    "safetensors.torch", "rich.progress", "typer", "ravine.cli", "ravine.training", "ravine.optim",
    "ravine.tasks", "ravine.report",
)  # fmt: skip


def serve(place: str) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen(64)
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _attend(connection)
            os._exit(0)
        connection.close()
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _attend(connection: socket.socket) -> None:
    """Start the program that is asked for, say its number, wait for it, and say how it ended."""
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    asked = json.loads(text)
    number = os.fork()
    if number == 0:
        connection.close()
        for k, stream in enumerate(streams):
            os.dup2(stream, k)
            os.close(stream)
        _become(**asked)
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\n" % number)
    _, status = os.waitpid(number, 0)
    with contextlib.suppress(BrokenPipeError):  # the test may not wait
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be ``python *words`` in a folder; never comes back."""
    import torch

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    through = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        stream: Any = open(number, "w", encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        stream.reconfigure(line_buffering=number == 2 or os.isatty(1), write_through=through)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    code = _ended(lambda: _run(words))
    code = _ended(_finish) or code
    os._exit(code)


def _finish() -> None:
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()


def _ended(act: Any) -> int:
    """Call and return the exit status that the interpreter would end with."""
    try:
        act()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _run(words: list[str]) -> None:
    while words[0] == "-W":
        warnings._processoptions([words[1]])  # type: ignore[attr-defined]
        words = words[2:]
    first, *rest = words
    if first == "-c":
        code, *arguments = rest
        sys.argv = ["-c", *arguments]
        sys.path.insert(0, "")
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv = list(rest)
        sys.path.insert(0, "")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))  # noqa: PTH100, PTH120
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    sys.path.pop(0)  # the tests' folder
    serve(sys.argv[1])
    os._exit(0)  # taking every module apart takes Python 3 s, which the tests would wait for
