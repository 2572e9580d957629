"""The first step of each rule in a new process, cold and from the cache: `python benchmarks/compile_time.py`.

Cold: an empty kernel cache. Warm: a second process over the same cache. `import` is what a process
needs to import torch and Ravine; `step` is the first step alone, compilation or loading included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, line, save

from ravine.optim import OPTIMIZERS

PROCESS = """
import json, sys, time
start = time.perf_counter()
import torch
from ravine import optim
ready = time.perf_counter()
w = torch.nn.Parameter(torch.randn(100, 100))
w.grad = torch.randn(100, 100)
optimizer = optim.OPTIMIZERS[sys.argv[1]]([w], lr=1e-3)
begin = time.perf_counter()
optimizer.step()
print(json.dumps({"import": ready - start, "step": time.perf_counter() - begin}))
"""


def first_step(rule: str, cache: str) -> dict[str, float]:
    """Return the seconds of the imports and of the first step in a process of its own."""
    environment = os.environ | {"RAVINE_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, rule],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> None:
    quick = arguments(__doc__ or "").quick
    rows = []
    line("", "cold s", "warm s", "import s")
    for rule in list(OPTIMIZERS)[: 2 if quick else None]:
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = first_step(rule, cache), first_step(rule, cache)
        rows.append(
            {"rule": rule, "cold": cold["step"], "warm": warm["step"]} | {"import": warm["import"]}
        )
        line(rule, f"{cold['step']:.2f}", f"{warm['step']:.3f}", f"{warm['import']:.2f}")
    if not quick:
        print(save("compile_time", {"rows": rows}, "python benchmarks/compile_time.py"))


if __name__ == "__main__":
    main()
