"""Which files of Ravine a compiled kernel's code comes from, as a digest of their contents.

A kernel's own text does not change when a function that it calls does; without this the machine code of an
older Ravine would run.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

# By pattern: a syntax tree of the same files takes 12 ms, more than loading a kernel.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(ravine[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)"
    r"|import[ \t]+(ravine[^\n]*))",
    re.MULTILINE,
)


def imported(text: str) -> set[str]:
    """Return the modules of Ravine that a text may import: ``a.b`` and, of ``from a import b``, both."""
    found = set()
    for module, names, modules in _IMPORT.findall(text):
        found.update(re.findall(r"ravine[\w.]*", modules))
        if module:
            found.update([module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))])
    return found


def digest(module: str, root: Path = ROOT) -> str:
    """Return a digest of a module's file and of all that it imports, and they import, within Ravine.

    The ``__init__`` of a package counts where it is imported itself, not on the way to a module in it.

    Args:
        module: its whole name, from ``ravine`` on.
        root: the folder of ``ravine``.
    """
    files: dict[Path, bytes] = {}
    waiting = [module]
    while waiting:
        path = _path(waiting.pop(), root)
        if path is not None and path not in files:
            files[path] = path.read_bytes()
            names = imported(files[path].decode())
            packages = {name.rpartition(".")[0] for name in names if _path(name, root)}
            waiting += names - packages
    contents = (hashlib.sha256(files[path]).digest() for path in sorted(files))
    return hashlib.sha256(b"".join(contents)).hexdigest()[:20]


def _path(module: str, root: Path) -> Path | None:
    place = root.joinpath(*module.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None
