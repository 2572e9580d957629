"""Generated kernels as files, so that they compile once on a machine and can be read.

A kernel's file is named by a hash of its source and of the engine's own functions that are compiled
into it. The machine code of a CPU kernel lies beside it (`ravine.engine.machine_code`); Triton keeps
its own in a cache of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType

from ravine.engine import machine_code


@lru_cache(maxsize=1)
def directory() -> Path:
    """Return the folder of generated kernels: ``RAVINE_CACHE_DIR``, else the user's cache folder.

    Where neither can be written to, a temporary folder of this process is taken.
    """
    chosen = os.environ.get("RAVINE_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(chosen).expanduser() if chosen else Path(base).expanduser() / "ravine" / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="ravine-kernels-"))
    return path


_lock = threading.RLock()


@cache
def _support(package: str) -> str:
    """Return a digest of the files beside a module that a kernel imports.

    Neither Numba nor a kernel's own text changes when a function that the kernel calls does; without
    this the machine code of an older Ravine would run.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    files = sorted(Path(spec.origin).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:20]


def load(source: str, kind: str) -> ModuleType:
    """Return the module made of a source text, written to the cache if it is not there yet.

    A file whose text is not what its name promises (damaged, or edited) is written anew.
    """
    name, source = _named(source, kind)
    with _lock:  # two threads may ask for the same kernel at once
        return sys.modules[name] if name in sys.modules else _made(name, source)


def functions(source: str, kind: str, names: Sequence[str]) -> list[tuple[object, int]]:
    """Return, for each ``cfunc`` of a source text, what keeps it alive and its address.

    They are compiled by Numba where this machine has not done so before, or the file is damaged.
    """
    module, source = _named(source, kind)
    found = []
    with _lock:
        for name in names:
            path = directory() / f"{module}.{name}.{machine_code.machine()}{machine_code.SUFFIX}"
            loaded = machine_code.load(path)
            if loaded is None:
                function = getattr(load(source, kind), name)
                machine_code.save(path, function)
                loaded = function, int(function.address)
            found.append(loaded)
    return found


def has_machine_code() -> bool:
    """Whether this machine's Numba has compiled a kernel into the cache before."""
    ending = f".{machine_code.machine()}{machine_code.SUFFIX}"
    return any(entry.name.endswith(ending) for entry in os.scandir(directory()))


def _named(source: str, kind: str) -> tuple[str, str]:
    """Return a module's name, and its source with the digests of what it imports."""
    imported = sorted(set(re.findall(r"^from (ravine[\w.]*) import", source, re.MULTILINE)))
    marks = "".join(f"# {name}: {_support(name)}\n" for name in imported)
    if not source.endswith(marks):
        source += marks
    digest = hashlib.sha256(source.encode()).hexdigest()[:20]
    return f"ravine_{kind}_{digest}", source


def _made(name: str, source: str) -> ModuleType:
    path = directory() / f"{name}.py"
    if not (path.is_file() and path.read_bytes() == source.encode()):
        handle, temporary = tempfile.mkstemp(dir=directory(), suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        Path(temporary).replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a file location always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
