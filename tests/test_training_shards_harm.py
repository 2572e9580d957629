"""Harm to checkpoints of divided weights: flipped bits, forged layouts, a kill, a full disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import exit_codes, in_processes
from test_training_processes import OPTIMIZER, assert_same, going_on, made, run

from ravine.errors import CheckpointError
from ravine.training.checkpoints import Position, Store
from ravine.training.checkpoints.folder import LONGEST, _spelled, facts
from ravine.training.checkpoints.layout import MOST, file_of
from ravine.training.checkpoints.shared import Shared
from ravine.training.devices.team import Together

SHARDED: dict[str, Any] = {"parallel": "sharded"}
EVERY = {"checkpoint_every": 4, "epochs": 3}
"""Updates 4, 8, 12, 16 of 18, and the end."""
FILES = ["layout.json", "manifest.json", "state.json", "tensors.safetensors"]
FILES += [f"tensors-0000{k}-of-00002.safetensors" for k in (1, 2)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two processes that is over, with two checkpoints."""
    folder = tmp_path_factory.mktemp("shards") / "run"
    in_processes(2, run, made, OPTIMIZER, SHARDED | EVERY | {"run_dir": folder})
    return folder


# Bits


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def newest(folder: Path) -> tuple[Position | None, list[str], str]:
    """Read a copy of the checkpoints in which a file of the newest is damaged, for each file."""
    store = Shared(folder, 2, writer=None, team=Together(torch.device("cpu")))  # type: ignore[arg-type]
    position, state, passed = store.newest()
    return position, passed, type(state["loop"]["model"]["state"]["0.weight"]).__name__


def each_newest(folders: list[Path]) -> list[Any]:
    return [newest(folder) for folder in folders]


def test_a_flipped_bit_in_any_file_is_named_and_passed_over_by_all(
    written: Path, tmp_path: Path
) -> None:
    before, last = Store(written / "checkpoints").positions()
    copies = []
    for name in FILES:
        copies.append(tmp_path / name)
        shutil.copytree(written / "checkpoints", copies[-1])
        assert sorted(p.name for p in (copies[-1] / last.name).iterdir()) == sorted(FILES)
        flip(copies[-1] / last.name / name)
    shutil.copytree(written / "checkpoints", tmp_path / "gone")
    (tmp_path / "gone" / last.name / FILES[-1]).unlink()
    copies.append(tmp_path / "gone")
    why = dict.fromkeys(FILES, "its checksum is another") | {"manifest.json": "damaged ("}
    told = [*why.items(), (FILES[-1], "No such file")]
    for found in in_processes(2, each_newest, copies):
        for (name, words), (position, (passed,), kind) in zip(told, found, strict=True):
            assert (position, kind) == (before, "Filed")
            assert f"checkpoint {last.name} is damaged ({name}: {words}" in passed
    for copy in copies:
        assert (copy / (last.name + ".damaged")).is_dir()
    # A process alone finds the same.
    shutil.rmtree(copies[0])
    shutil.copytree(written / "checkpoints", copies[0])
    flip(copies[0] / last.name / FILES[-1])
    position, _, passed = Store(copies[0]).newest()
    assert position == before and FILES[-1] in passed[0]


# Layouts from a stranger

WEIGHT = "loop/model/state/0.weight"
"""Of shape (5, 4): three rows in the first file, two in the second."""


def first(key: str, value: Any, name: str = WEIGHT) -> Callable[[Any], None]:
    return lambda tensors: tensors[name]["chunks"][0].update({key: value})


def put(key: str, value: Any) -> Callable[[Any], None]:
    return lambda tensors: tensors[WEIGHT].update({key: value})


FORGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a path": (first("file", "../../x"), "it lies in file '../../x' of 2"),
    "no such file": (first("file", 3), "it lies in file 3 of 2"),
    "true": (first("file", True), "it lies in file True of 2"),
    "overlap": (
        lambda t: t[WEIGHT].update(chunks=[t[WEIGHT]["chunks"][0]] * 2, shape=[6, 4]),
        "overlap",
    ),
    "missing": (lambda t: t[WEIGHT]["chunks"].pop(), "not as many values as (5, 4)"),
    "moved": (first("offsets", [2, 0]), "overlap"),
    "negative": (first("offsets", [-1, 0]), "[-1, 0] is no list of sizes or offsets"),
    "outside": (first("offsets", [3, 0]), "is not inside of (5, 4)"),
    "huge": (first("sizes", [1 << 62, 4]), "is not inside of (5, 4)"),
    "huge shape": (put("shape", [1 << 62, 4]), "not as many values"),
    "shape": (put("shape", [5, 5]), "not as many values"),
    "dimensions": (put("shape", [20]), "is not inside of (20,)"),
    "a number": (put("shape", 5), "5 is no list"),
    "a fraction": (put("shape", [5.0, 4]), "is no list"),
    "other type": (put("dtype", "F32"), "holds ('F64', (3, 4)), not F32"),
    "no type": (put("dtype", "pickle"), "not pickle"),
    "other sizes": (first("sizes", [2, 4]), "holds ('F64', (3, 4)), not F64 of (2, 4)"),
    "other name": (lambda t: t.update({"x": t.pop(WEIGHT)}), "file 1 holds nothing"),
    "twice": (lambda t: t.update({"loop/random/torch": t[WEIGHT]}), "is there twice"),
    "no chunks": (lambda t: t[WEIGHT].pop("chunks"), "KeyError: 'chunks'"),
    "a list": (lambda t: t.update({WEIGHT: [1]}), "TypeError"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_layout_is_refused_by_name(name: str, written: Path, tmp_path: Path) -> None:
    act, words = FORGED[name]
    shutil.copytree(written / "checkpoints", tmp_path / "run")
    before, last = Store(tmp_path / "run").positions()
    forge(tmp_path / "run" / last.name, act)
    position, _, (passed,) = Store(tmp_path / "run").newest()
    assert position == before
    assert f"checkpoint {last.name} is damaged (layout.json: " in passed and words in passed


def forge(checkpoint: Path, act: Callable[[Any], Any]) -> None:
    """Change a layout, and give the checkpoint the manifest that fits, as a stranger can."""
    layout = json.loads((checkpoint / "layout.json").read_text())
    act(layout["tensors"])
    (checkpoint / "layout.json").write_text(json.dumps(layout))
    files = {name: facts(checkpoint / name) for name in FILES if name != "manifest.json"}
    (checkpoint / "manifest.json").write_text(_spelled(files))


@pytest.mark.parametrize("change", ["path", "more", "less"])
def test_a_manifest_of_other_files_is_refused(change: str, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "checkpoints", tmp_path / "run")
    _, last = Store(tmp_path / "run").positions()
    files = {n: facts(tmp_path / "run" / last.name / n) for n in FILES if n != "manifest.json"}
    if change != "more":
        taken = files.pop(FILES[-1])
    if change != "less":
        files["../../x"] = taken if change == "path" else files[FILES[-1]]
    (tmp_path / "run" / last.name / "manifest.json").write_text(_spelled(files))
    _, _, (passed,) = Store(tmp_path / "run").newest()
    assert "manifest.json: damaged (it lists other files than a checkpoint has)" in passed


def test_the_longest_manifest_is_read_as_a_whole() -> None:
    parts = {file_of(k, MOST): {"bytes": 1 << 50, "sha256": "0" * 64} for k in range(1, MOST + 1)}
    rest = {name: parts[file_of(1, MOST)] for name in FILES[:1] + FILES[2:4]}
    assert len(_spelled(parts | rest)) < LONGEST


# A process that is killed, a disk that is full


def dies_writing(folder: Path, victim: int) -> None:
    import safetensors.torch

    save, saved = safetensors.torch.save_file, []

    def killed(tensors: Any, path: str) -> None:
        saved.extend([1] * ("/checkpoints/" in path and "/tensors-" in path))
        save(tensors, path)
        if len(saved) == 3 and torch.distributed.get_rank() == victim:
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = killed
    try:
        run(made, OPTIMIZER, SHARDED | EVERY | {"run_dir": folder})
    except BaseException as error:
        told = folder.parent / f"error-{torch.distributed.get_rank()}"
        told.write_text(f"{type(error).__name__}: {error}")
        raise


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_killed_while_it_writes_ends_all_and_the_run_goes_on(
    victim: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    codes = exit_codes(3, dies_writing, folder, victim)
    assert codes == [-signal.SIGKILL if rank == victim else 1 for rank in range(3)]
    for rank in {0, 1, 2} - {victim}:
        told = (tmp_path / f"error-{rank}").read_text()
        assert told.startswith("DistributedError: another process of the run ended")
    steps = [position.step for position in Store(folder / "checkpoints").positions()]
    assert steps == [4, 8]
    settings = {key: value for key, value in EVERY.items() if key != "epochs"}
    assert_same(going_on(folder, 3, OPTIMIZER, settings), run(made, OPTIMIZER, {"epochs": 3}))
    assert not list((folder / "checkpoints").glob("*.part"))


def disk_full(folder: Path) -> str:
    write, written, limits = Shared._write, [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self: Shared, *arguments: Any) -> None:
        written.extend([1] * (self.folder.name == "checkpoints"))
        if len(written) == 3 and torch.distributed.get_rank() == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        write(self, *arguments)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(CheckpointError) as caught:
        patched.setattr(Shared, "_write", fill)
        run(made, OPTIMIZER, SHARDED | EVERY | {"run_dir": folder})
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="limits of files are POSIX's")
def test_a_disk_that_is_full_for_one_process_is_an_error_in_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for message in in_processes(2, disk_full, folder):
        assert message.startswith("the checkpoint cannot be written")
        assert "process 1: " in message and "File too large" in message
        assert "the checkpoints before it are untouched" in message
    steps = [position.step for position in Store(folder / "checkpoints").positions()]
    assert steps == [4, 8]
    assert not list((folder / "checkpoints").glob("*.part"))
    assert_same(going_on(folder, 3, OPTIMIZER, {}), run(made, OPTIMIZER, {"epochs": 3}))
