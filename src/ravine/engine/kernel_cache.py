"""Generated kernels as files, so that they compile once on a machine and can be read.

A kernel's file is named by a hash of its source and of the engine's own functions that are compiled
into it. Numba keeps its machine code beside the file (in ``__pycache__``), and Triton in its own
cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType


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
    imported = sorted(set(re.findall(r"^from (ravine[\w.]*) import", source, re.MULTILINE)))
    source += "".join(f"# {name}: {_support(name)}\n" for name in imported)
    digest = hashlib.sha256(source.encode()).hexdigest()[:20]
    name = f"ravine_{kind}_{digest}"
    with _lock:  # two threads may ask for the same kernel at once
        return sys.modules[name] if name in sys.modules else _made(name, source)


def _made(name: str, source: str) -> ModuleType:
    path = directory() / f"{name}.py"
    if not (path.is_file() and path.read_bytes() == source.encode()):
        handle, temporary = tempfile.mkstemp(dir=directory(), suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        Path(temporary).replace(path)
    machine_code = path.parent / "__pycache__"
    had_machine_code = any(machine_code.glob(f"{name}.*.nb?"))
    try:
        return _imported(name, path)
    except Exception:
        if not had_machine_code:
            raise
    for damaged in machine_code.glob(f"{name}.*.nb?"):  # Numba does not get over these itself
        damaged.unlink(missing_ok=True)
    return _imported(name, path)


def _imported(name: str, path: Path) -> ModuleType:
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
