"""Kill a run at a moment, resume it in a new process, compare what it leaves with the unbroken run.

The child is this file run as a program. It ends itself with SIGKILL at the n-th call that a thread
makes, of whatever function, so that every line of Python may be the last one; or it says that the
native write of the tensors begins, and the parent kills it a random number of microseconds later.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import programs

MAIN, WRITER, NATIVE = "main thread", "writer", "native write"


@dataclass(frozen=True)
class Moment:
    """When a child is killed.

    Attributes:
        where: at the n-th call of the main thread, at the n-th of the thread that writes the
            checkpoints, or in the native write of the n-th checkpoint.
        n: counted from 1.
        spin: seconds that the parent waits within the native write.
    """

    where: str
    n: int
    spin: float = 0.0


@dataclass(frozen=True)
class Work:
    """A run that is killed and resumed."""

    task: str
    options: dict[str, Any]
    run_dir: str
    resume: bool = False
    moment: Moment | None = None


def child(work: Work) -> None:
    """Train; never comes back if the moment is reached."""
    import torch

    import ravine

    torch.set_num_threads(1)  # the bits depend on it, and the tests share few cores
    if work.moment is not None:
        _arm(work.moment)
    counted = _counted() if work.moment is None else None
    where = {"resume": work.run_dir} if work.resume else {"run_dir": work.run_dir, **work.options}
    try:
        ravine.train(_task(work.task), **where)
    finally:
        sys.setprofile(None)
    if counted is not None:
        print(json.dumps(counted))  # noqa: T201 (what the parent reads)


def _task(name: str) -> Any:
    """Return the task; of the text the first 64 windows, an epoch of 8 steps."""
    from ravine.tasks import load_task

    if name != "text":
        return name

    def text(seed: int) -> Any:
        task = load_task("text", seed)
        task.model.register_forward_hook(_noise)
        X, y = task.train
        V, w = task.valid
        train, valid = (X[:64], y[:64]), (V[:16], w[:16])
        return replace(task, train=train, valid=valid, test=None, batch_size=8)

    return text


def _noise(module: Any, inputs: Any, output: Any) -> Any:
    """Draw from every generator of the process, as noise of a person's own does."""
    import numpy as np
    import torch

    if not module.training:
        return output
    return output * (1 + 0.01 * (torch.rand(()) + random.random() + np.random.rand()))


def _arm(moment: Moment) -> None:
    if moment.where == NATIVE:
        _announce_writes(moment.n)
        return
    left = moment.n

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        if event in ("call", "c_call"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    _watch(moment.where, count)


def _watch(where: str, hook: Any) -> None:
    if where == MAIN:
        _when_started(lambda: sys.setprofile(hook))
    else:
        _in_writers(hook)


def _when_started(act: Any) -> None:
    """Act when the run directory is about to be locked: before that there is nothing to be lost."""
    from ravine.training import run_directory

    opened = run_directory.RunDirectory._open

    def first(self: Any, path: Path) -> None:
        act()
        opened(self, path)

    run_directory.RunDirectory._open = first  # type: ignore[method-assign]


def _in_writers(hook: Any) -> None:
    # Threads take the hook as they start; those of the checkpoints have a name.
    def chosen(frame: Any, event: str, argument: Any) -> None:
        if threading.current_thread().name.startswith("ravine-checkpoint"):
            sys.setprofile(hook)
        else:
            sys.setprofile(None)

    threading.setprofile(chosen)


def _counted() -> dict[str, int]:
    """Count the calls that a killed child would count."""
    counted = {MAIN: 0, WRITER: 0, NATIVE: 0}

    def hook(where: str) -> Any:
        def count(frame: Any, event: str, argument: Any) -> None:
            if event in ("call", "c_call"):
                counted[where] += 1

        return count

    _when_started(lambda: sys.setprofile(hook(MAIN)))
    _in_writers(hook(WRITER))
    import safetensors.torch

    save = safetensors.torch.save_file

    def counting(*args: Any, **options: Any) -> None:
        counted[NATIVE] += 1
        save(*args, **options)

    safetensors.torch.save_file = counting
    return counted


def _announce_writes(n: int) -> None:
    import safetensors.torch

    save, made = safetensors.torch.save_file, 0

    def announcing(*args: Any, **options: Any) -> None:
        nonlocal made
        made += 1
        if made == n:
            os.write(1, b"writing\n")
        save(*args, **options)

    safetensors.torch.save_file = announcing


def run(work: Work) -> tuple[int, str]:
    """Run a child; return its exit status (-9: killed) and what it said on stdout."""
    words = [__file__, json.dumps(asdict(work))]
    with programs.Program(words, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        if work.moment is not None and work.moment.where == NATIVE:
            for line in process.stdout:
                if line.startswith("writing"):
                    until = time.perf_counter() + work.moment.spin
                    while time.perf_counter() < until:
                        pass
                    process.kill()
        said, errors = process.communicate(timeout=600)
    if process.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(errors)
    return process.returncode, said


def left(run_dir: Path) -> dict[str, Any]:
    """Return what a run leaves, without its times."""
    record = json.loads((run_dir / "record.json").read_text(encoding="utf-8"))
    text = (run_dir / "history.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows == record["history"]
    for row in rows:
        row.pop("seconds")
    return {
        "weights": (run_dir / "model.safetensors").read_bytes(),
        "history": rows,
        "metrics": record["metrics"],
        "status": record["status"],
        "steps": record["facts"]["steps"],
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "digits": {
        "optimizer": "adam(lr=warmup(10) >> cosine(100, peak=3e-3), average=0.99)",
        "epochs": 4,
        "regularize": ["dropout(0.3)", "early_stopping(patience=9)"],
    },
    "text": {"epochs": 3, "regularize": ["dropout(0.1)"]},
}
"""The runs: every kind of state has a part in them."""


def options(task: str, every: int) -> dict[str, Any]:
    return OPTIONS[task] | {"seed": 5, "checkpoint_every": every}


def moments(calls: dict[str, int], seed: int) -> Iterator[Moment]:
    """Return random moments for ever, given how much there is to count in the unbroken run."""
    draw = random.Random(seed)
    while True:
        where = draw.choices([MAIN, WRITER, NATIVE], weights=[2, 2, 1])[0]
        yield Moment(where, draw.randint(1, calls[where]), draw.uniform(0, 2e-3))


def broken(task: str, every: int, moment: Moment, run_dir: Path) -> bool:
    """Kill a run, then resume it; return whether it was killed (a moment may come after the end)."""
    status, _ = run(Work(task, options(task, every), str(run_dir), moment=moment))
    resume = (run_dir / "config.json").exists()  # not there: it was killed before it began
    again, _ = run(Work(task, options(task, every), str(run_dir), resume=resume))
    assert again == 0
    return status != 0


def unbroken(task: str, every: int, run_dir: Path) -> dict[str, int]:
    """Run without a kill; return what there is to count."""
    status, said = run(Work(task, options(task, every), str(run_dir)))
    assert status == 0
    counted: dict[str, int] = json.loads(said.splitlines()[-1])
    return counted


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["moment"] is not None:
        given["moment"] = Moment(**given["moment"])
    child(Work(**given))
