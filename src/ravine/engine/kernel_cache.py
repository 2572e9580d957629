"""Generated kernels as files, so that they compile once on a machine and can be read.

A kernel's file is named by a hash of its source and of the files of the engine that are compiled into it
(`ravine.engine.sources`). The machine code of a CPU kernel lies beside it
(`ravine.engine.machine_code`); Triton keeps its own in a cache of its own.
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

from ravine.engine import machine_code, sources


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

_support = cache(sources.digest)


def load(source: str, kind: str) -> ModuleType:
    """Return the module made of a source text, written to the cache if it is not there yet.

    A file whose text is not what its name promises (damaged, or edited) is written anew.
    """
    name, source = _named(source, kind)
    with _lock:  # two threads may ask for the same kernel at once
        return sys.modules[name] if name in sys.modules else _made(name, source)


def function(source: str, name: str) -> tuple[object, int]:
    """Return what keeps a function of a source text alive, and its address.

    It is compiled by `ravine.engine.cpu_compiler` where this machine has not done so before.
    """
    compiler, emitter = "ravine.engine.cpu_compiler", "ravine.engine.machine_code"
    module, source = _named(source, "cpu", compiler, emitter)
    path = _path(module, name)
    with _lock:
        loaded = machine_code.load(path)
        if loaded is None:
            from ravine.engine import cpu_compiler

            _written(module, source)
            code = machine_code.made(cpu_compiler.compiled(source, name))
            machine_code.save(path, code, name)
            loaded = machine_code.linked(code, name)
    return loaded


def _path(module: str, name: str) -> Path:
    return directory() / f"{module}.{name}.{machine_code.machine()}{machine_code.SUFFIX}"


def _named(source: str, kind: str, *compiled_by: str) -> tuple[str, str]:
    """Return a module's name, and its source with the digests of what its code depends on."""
    found = re.findall(r"^from (ravine[\w.]*) import", source, re.MULTILINE)
    imported = sorted({*found, *compiled_by})
    marks = "".join(f"# {name}: {_support(name)}\n" for name in imported)
    if not source.endswith(marks):
        source += marks
    digest = hashlib.sha256(source.encode()).hexdigest()[:20]
    return f"ravine_{kind}_{digest}", source


def _written(name: str, source: str) -> Path:
    path = directory() / f"{name}.py"
    if not (path.is_file() and path.read_bytes() == source.encode()):
        handle, temporary = tempfile.mkstemp(dir=directory(), suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        Path(temporary).replace(path)
    return path


def _made(name: str, source: str) -> ModuleType:
    path = _written(name, source)
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
