"""Kill runs with SIGKILL at random moments, resume them: `python benchmarks/kills.py`.

Half of the runs are on digits, half on the first 64 windows of text, with dropout, a schedule,
an average, early stopping. Of the moments two in five are calls of the main thread (any function,
from the lock of the run directory to the end), two in five calls of the thread that writes a
checkpoint, one in five within the native write of its tensors. What a resumed run leaves (weights,
history, metrics) is compared with what the unbroken run left, to the bit.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import killing
from measure import arguments, line, save

EVERY = (1, 2, 3, 5)


def main() -> None:
    quick = arguments(__doc__ or "").quick
    wanted = 4 if quick else 50
    rows = []
    line("", "killed", "resumed", "identical", "seconds")
    for task in ("digits", "text"):
        start, draw = time.perf_counter(), random.Random(2024)
        where: Counter[str] = Counter()
        different: list[str] = []
        late = 0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            calls, whole = {}, {}
            for every in EVERY:
                calls[every] = killing.unbroken(task, every, folder / f"whole-{every}")
                whole[every] = killing.left(folder / f"whole-{every}")
            if any(one != whole[EVERY[0]] for one in whole.values()):
                different.append("the unbroken runs differ")
            moments = {every: killing.moments(calls[every], seed=every) for every in EVERY}
            while sum(where.values()) < wanted:
                every = draw.choice(EVERY)
                moment = next(moments[every])
                run = folder / f"{sum(where.values())}-{late}"
                if not killing.broken(task, every, moment, run):
                    late += 1  # the moment came after the end
                    continue
                where[moment.where] += 1
                if killing.left(run) != whole[every]:
                    different.append(f"every {every}: {moment}")
        killed = sum(where.values())
        seconds = round(time.perf_counter() - start, 1)
        line(task, killed, killed, killed - len(different), seconds)
        rows.append(
            {
                "task": task,
                "killed": killed,
                "identical": killed - len(different),
                "where": dict(where),
                "moments_after_the_end": late,
                "different": different,
            }
        )
    if not quick:
        print(save("kills", {"rows": rows}, "python benchmarks/kills.py"))
    if any(row["different"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
