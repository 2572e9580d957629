"""Machine code: made by LLVM, and on disk, so that a kernel that was compiled once is only loaded.

A file belongs to one processor and one version of the compiler: both are in its name. Its first line
is JSON with the kernel's symbol and a checksum of the rest, an object file. A damaged file is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

SUFFIX = ".o"


@lru_cache(maxsize=1)
def machine() -> str:
    """Return a digest of what machine code depends on: processor and compiler."""
    import llvmlite.binding as llvm

    facts = [
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        version("llvmlite"),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def turns_tiles() -> bool:
    """Whether this processor has vectors of 64 bytes, of which it can move a part."""
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("avx512f"))


def made(text: str) -> bytes:
    """Return the object file of a module in LLVM's own language."""
    return bytes(_compiling_machine().emit_object(optimised(text)))


def optimised(text: str) -> Any:
    """Return a module in LLVM's own language, its loops made into vectors."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    machine = _compiling_machine()
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    tuning.slp_vectorization = False  # off in Numba too, for what it compiled wrongly
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module


def save(path: Path, code: bytes, symbol: str) -> None:
    """Write an object file."""
    facts = {"symbol": symbol, "sha256": hashlib.sha256(code).hexdigest()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(json.dumps(facts).encode() + b"\n" + code)
    Path(temporary).replace(path)


def load(path: Path) -> tuple[object, int] | None:
    """Return what keeps the code of a file alive, and the kernel's address; None if it is no use."""
    try:
        first, _, code = path.read_bytes().partition(b"\n")
        facts = json.loads(first)
        whole = facts["sha256"] == hashlib.sha256(code).hexdigest()
        symbol = str(facts["symbol"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return linked(code, symbol) if whole else None


def linked(code: bytes, symbol: str) -> tuple[object, int]:
    """Return what keeps the code of an object file alive, and the address of a function in it."""
    import llvmlite.binding as llvm

    _initialise()
    # An engine of its own: symbols of two kernels never meet.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine(), use_lmm=True)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, int(engine.get_function_address(symbol))


@cache
def _initialise() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@cache
def _compiling_machine() -> Any:
    """Return what emits code for this very processor."""
    import llvmlite.binding as llvm

    _initialise()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        # Constants are read by their distance from the code, which the memory manager of `linked` keeps
        # small. By address, as a JIT's default has it, each takes a register and two instructions in
        # the loop: Poisson 9 % slower, Tweedie 12.
        reloc="pic",
        codemodel="small",
        jit=True,
    )


def _target_machine() -> Any:
    import llvmlite.binding as llvm

    return llvm.Target.from_default_triple().create_target_machine(jit=True)
