"""Compiled kernels on disk, and what happens without Numba: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MY_RULE = """
import ravine
from ravine.engine.functions import sqrt

@ravine.update_rule
def my_rule(w, g, m, *, t, lr, decay=0.9):
    m = decay * m + (1 - decay) * g * g
    return w - lr * g / (sqrt(m / (1 - decay**t)) + 1e-8), m
"""

STEP = """
import torch
from my_rule import my_rule
w = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
optimizer = my_rule([w], lr=0.5)
w.grad = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
optimizer.step()
assert torch.allclose(w.data, torch.tensor([-0.5, 0.5, -0.5], dtype=torch.float64)), w
print(optimizer.explain())
from ravine.engine import kernel_cache
import sys
(module,) = [m for name, m in sys.modules.items() if name.startswith("ravine_cpu_")] or [None]
print("compiled", module.kernel.cache_hits if module else None, kernel_cache.directory())
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_rule.py").write_text(MY_RULE)
    return tmp_path


def run(folder, code=STEP, *, cache=None, options=(), check=True):
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=folder,
        env={**os.environ, "RAVINE_CACHE_DIR": str(cache or folder / "cache")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (folder / "cache").rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_a_rule_of_ones_own_is_compiled_once(folder):
    first = run(folder)
    assert "cpu kernel of my_rule" in first.stdout
    assert "compiled 0 " in first.stdout
    made = snapshot(folder)
    assert {path.suffix for path in made} == {".py", ".nbi", ".nbc"}
    second = run(folder)
    assert "compiled 1 " in second.stdout
    assert snapshot(folder) == made
    # Another line in the same file, and other numbers, are no reason to compile again.
    (folder / "my_rule.py").write_text("# a comment\n" + MY_RULE.replace("0.9", "0.8"))
    assert "compiled 1 " in run(folder).stdout
    (folder / "my_rule.py").write_text(MY_RULE.replace("sqrt(m", "sqrt(2 * m / 2"))
    assert "compiled 0 " in run(folder).stdout


@pytest.mark.slow
def test_damaged_files_are_made_again(folder):
    run(folder)
    for suffix in (".py", ".nbi", ".nbc"):
        (path,) = (p for p in snapshot(folder) if p.suffix == suffix)
        whole = path.read_bytes()
        path.write_bytes(b"\xff\xfe" + whole[: len(whole) // 2])
        run(folder)
        if suffix == ".py":
            assert path.read_bytes() == whole
    assert "compiled 1 " in run(folder).stdout


def test_a_cache_that_cannot_be_written_to_is_left_out(folder):
    blocked = folder / "blocked"
    blocked.write_text("a file, not a folder")
    done = run(folder, cache=blocked / "cache")
    assert "cpu kernel of my_rule" in done.stdout
    assert "ravine-kernels-" in done.stdout
    assert blocked.read_text() == "a file, not a folder"


WITHOUT_NUMBA = """
import sys, warnings
sys.modules["numba"] = None
import torch, ravine.optim
from ravine.errors import BackendWarning
w = torch.nn.Parameter(torch.zeros(3))
w.grad = torch.ones(3)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for rule in (ravine.optim.SGD, ravine.optim.Adam):
        optimizer = rule([w], lr=0.5, clip_norm=10.0)
        for _ in range(2):
            optimizer.step()
seen = [w for w in seen if issubclass(w.category, BackendWarning)]
assert len(seen) == 1, seen
print(seen[0].message)
print(optimizer.explain())
assert "numba" not in {n for n, m in sys.modules.items() if m is not None}
assert torch.allclose(w.detach(), torch.full((3,), -2.0)), w
try:
    ravine.optim.SGD([w], lr=0.5, backend="cpu").step()
except ravine.errors.ArgumentError as error:
    print(error)
"""


def test_without_numba_everything_runs_after_one_warning(folder):
    lines = run(folder, WITHOUT_NUMBA).stdout.splitlines()
    assert lines[0].startswith("Numba cannot be imported (")
    assert lines[0].endswith(": Ravine computes with plain PyTorch operations, which is slower")
    assert "torch.float32: reference: Numba cannot be imported" in lines[1]
    assert lines[2] == "backend='cpu' cannot be used"
    assert lines[3].startswith("  got:      Numba cannot be imported")


@pytest.mark.slow
def test_machine_code_of_another_ravine_is_not_used(folder):
    """A kernel contains the engine's own functions: other functions, another file."""
    from ravine.engine import kernel_cache

    code = STEP + "\nprint(sorted(p.name for p in kernel_cache.directory().glob('*.py')))"
    before = run(folder, code).stdout.splitlines()[-1]
    changed = (
        "import ravine.engine.kernel_cache as k\nk._support = lambda package: 'another'\n" + code
    )
    assert hasattr(kernel_cache, "_support")
    after = run(folder, changed).stdout.splitlines()[-1]
    assert len(eval(before)) == 1
    assert len(eval(after)) == 2
