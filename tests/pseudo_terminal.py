"""A terminal for a process, and the screen that a person would see on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

from programs import Program

_TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)|(.)", re.DOTALL)


class Screen:
    """The lines that were written, after the movements and deletions among them."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.lines: list[str] = [""]
        self.widest = 0
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        for arguments, command, back, down, words, unknown in _TOKEN.findall(text):
            if words:
                line = self.lines[self._row].ljust(self._column)
                end = self._column + len(words)
                self.lines[self._row] = line[: self._column] + words + line[end:]
                self._column = end
                self.widest = max(self.widest, end)
            elif back:
                self._column = 0
            elif down:
                self._row += 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif command == "A":
                self._row = max(0, self._row - int(arguments or 1))
            elif command == "K":
                self.lines[self._row] = ""
            else:
                assert command in ("m", "h", "l"), (command, unknown)


def on_terminal(
    arguments: list[str], folder: Path, width: int, **environment: str
) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "CI", "NO_COLOR")}
    surroundings = {**kept, "TERM": "xterm-256color", **environment}
    with Program(
        arguments, cwd=folder, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            written += part
        os.close(ours)
        return process.wait(), written.decode()
