"""Real processes: the command and a script under torchrun, and one process that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import programs
import pytest

pytestmark = pytest.mark.slow

TORCHRUN = [
    "-m", "torch.distributed.run",
    "--standalone", "--nproc-per-node", "2", "--monitor-interval", "0.1",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return programs.run([*TORCHRUN, *words], cwd=folder, env=ENVIRONMENT)


def test_the_command_writes_one_run(tmp_path: Path) -> None:
    train = ["-m", "ravine", "train", "wine", "--epochs", "3"]
    done = torchrun(tmp_path, *train, "--parallel", "sharded", "--accumulate", "2", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)  # of one process
    (run,) = (tmp_path / "runs").iterdir()
    assert {"config.json", "model.safetensors", "report.html"} <= {p.name for p in run.iterdir()}
    assert record["config"]["parallel"] == "sharded"
    assert record["facts"]["processes"] == 2
    words = [*train, "--json", "--run-dir", "alone"]
    alone = programs.run(words, cwd=tmp_path, env=ENVIRONMENT, check=True)
    expected = json.loads(alone.stdout)
    assert record["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
    longer = torchrun(tmp_path, "-m", "ravine", "train", "--resume", str(run), "--epochs", "4")
    assert longer.returncode == 0, longer.stderr
    assert len((run / "history.jsonl").read_text().splitlines()) == 4
    for folder, epochs in ((run, "5"), (tmp_path / "alone", "5")):  # back in one process
        words = ["-m", "ravine", "train", "--resume", str(folder), "--epochs", epochs]
        programs.run(words, cwd=tmp_path, env=ENVIRONMENT, check=True)
    one, other = (json.loads((f / "record.json").read_text()) for f in (run, tmp_path / "alone"))
    assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-5)


SCRIPT = """
import sys, torch, ravine

class Fails(torch.nn.Module):
    steps = 0
    def forward(self, output, target):
        Fails.steps += 1
        if Fails.steps == 5 and int(__import__("os").environ["RANK"]) == 1:
            {what}
        return ravine.losses.cross_entropy(output, target)

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
def say(event):
    if hasattr(event, "row"):
        print("epoch", event.row["epoch"], flush=True)

task = ravine.Task(model=torch.nn.Linear(4, 3), loss=Fails(), train=(X, X[:, :3].argmax(1)))
try:
    ravine.train(task, "sgd(lr=0.1)", batch_size=8, epochs=4000, run_dir="run",
                 regularize=(), listeners=[say])
except ravine.errors.RavineError as error:
    print(type(error).__name__, error, file=sys.stderr, flush=True)
    raise
"""


@pytest.mark.parametrize(
    "what", ["raise ValueError('a bad row')", "import os; os.kill(os.getpid(), 9)"]
)
def test_one_process_that_fails_ends_all(what: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(what=what))
    done = torchrun(tmp_path, "script.py")
    assert done.returncode != 0
    if "ValueError" in what:
        assert "ValueError: a bad row" in done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())  # of the other process
    assert record["status"] == "failed"
    assert record["message"] == "DistributedError: another process of the run ended"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_torchrun_saves_and_the_run_goes_on(name: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(what="pass"))
    with programs.Program([*TORCHRUN, "script.py"], cwd=tmp_path, env=ENVIRONMENT) as started:
        assert started.stdout is not None
        assert any(line == "epoch 4\n" for line in started.stdout)
        started.send_signal(getattr(signal, name))
        _, errors = started.communicate()
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["status"] == "interrupted", errors
    assert list((tmp_path / "run" / "checkpoints").iterdir())
