"""Checkpoints of divided weights: what each process writes, holds and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import in_processes
from safetensors.torch import load_file
from test_training_processes import OPTIMIZER, Result, assert_same, made, run
from torch.distributed.tensor import DTensor

from ravine.errors import RunDirectoryError
from ravine.training.checkpoints import Store
from ravine.training.checkpoints.layout import Filed
from ravine.training.devices.layouts import Divided

SHARDED: dict[str, Any] = {"parallel": "sharded", "regularize": "early_stopping(patience=9)"}
WORLD = 4
FILES = [f"tensors-{k:05d}-of-00004.safetensors" for k in range(1, WORLD + 1)]


def none_gathered(folder: Path, policy: str, optimizer: str) -> tuple[Result, dict[str, int]]:
    """Train and go on, where no tensor may be put together before the end; say what was read."""
    full, plain, read = DTensor.full_tensor, Divided.plain, Filed.read
    seen: dict[str, int] = {}

    def refused(self: Any, **options: Any) -> Any:
        raise AssertionError("a tensor is put together")

    def at_the_end(self: Divided) -> Any:
        with pytest.MonkeyPatch.context() as allowed:
            allowed.setattr(DTensor, "full_tensor", full)
            return plain(self)

    def noted(self: Filed, offsets: Any, sizes: Any) -> Any:
        found = read(self, offsets, sizes)
        seen[self.name] = found.numel()
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DTensor, "full_tensor", refused)
        patched.setattr(Divided, "plain", at_the_end)
        patched.setattr(Filed, "read", noted)
        settings = SHARDED | {"checkpoint_every": 2, "nonfinite": policy}
        run(made, optimizer, settings | {"run_dir": folder, "epochs": 2})
        assert not seen
        return run(made, optimizer, settings | {"resume": folder, "epochs": 4}), seen


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [OPTIMIZER, "adafactor(lr=0.1, average=0.9)"])
def test_each_process_writes_and_reads_its_part_alone(tmp_path: Path, optimizer: str) -> None:
    found = in_processes(WORLD, none_gathered, tmp_path, "rollback", optimizer)
    expected = run(made, optimizer, SHARDED | {"parallel": None, "epochs": 4})
    for result, _ in found:
        assert_same(result, expected)
    for folder in ("checkpoints", "best", "rollback"):
        store = Store(tmp_path / folder)  # as one process reads it
        newest, state, passed = store.newest()
        assert newest is not None and not passed
        divided = _divided(state["loop"])
        parts = [load_file(tmp_path / folder / newest.name / name) for name in FILES]
        assert {name for part in parts for name in part} == divided.keys()
        for name, whole in divided.items():
            chunks = [*whole.chunk(WORLD), *[None] * WORLD][:WORLD]  # as fully_shard divides it
            for part, chunk in zip(parts, chunks, strict=True):
                assert torch.equal(part[name], chunk) if chunk is not None else name not in part
        # Of nothing that is divided does a process read more than its part.
        for rank, (_, seen) in enumerate(found):
            for name, whole in divided.items():
                chunks = whole.chunk(WORLD)
                assert seen[name] == (chunks[rank].numel() if rank < len(chunks) else 0), name


def _divided(loop: Any) -> dict[str, torch.Tensor]:
    """What has the shape of a weight, by its name among the tensors."""
    found = {f"loop/model/state/{name}": value for name, value in loop["model"]["state"].items()}
    found |= {f"loop/stopper/weights/{n}": value for n, value in loop["stopper"]["weights"].items()}
    for k, held in loop["optimizer"]["state"].items():
        here = {f"loop/optimizer/state/{k}/{name}": value for name, value in held.items()}
        found |= {n: v for n, v in here.items() if isinstance(v, torch.Tensor) and v.dim()}
    return found


def other_machine(folder: Path) -> str:
    """Train where one process has a folder of the same name, on another disk."""
    exists = Path.exists

    def seen(self: Path) -> bool:
        away = torch.distributed.get_rank() == 1 and self.name.startswith(".seen-")
        return not away and exists(self)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(RunDirectoryError) as caught:
        patched.setattr(Path, "exists", seen)
        run(made, OPTIMIZER, SHARDED | {"run_dir": folder})
    return str(caught.value)


def test_a_directory_that_not_all_processes_see_is_refused(tmp_path: Path) -> None:
    for message in in_processes(2, other_machine, tmp_path / "run"):
        assert message.startswith("the run directory is not the same folder in all processes")
        assert "process 1" in message and "all machines share" in message
    assert not (tmp_path / "run").exists()


def complex_weights(folder: Path) -> list[Any]:
    """Keep and read a divided tensor of complex numbers, by way of the disk and of memory."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from ravine.training.checkpoints import Places, Position
    from ravine.training.devices import parted, placed
    from ravine.training.devices.team import Together

    whole = torch.view_as_complex(torch.arange(20, dtype=torch.float64).view(5, 2, 2))
    divided = distribute_tensor(whole, init_device_mesh("cpu", (2,)), [Shard(0)])
    places = Places(folder, Together(torch.device("cpu")), divided=True)
    found = []
    for place in (places.asked("points", keep=1), places.memory()):
        place.save(Position(1, 0), parted({"w": divided, "rank": torch.distributed.get_rank()}))
        _, state, _ = place.newest()
        back = placed(state, {"w": divided})
        found += [back["rank"], back["w"].full_tensor()]
        _, state, _ = place.newest()  # where nothing says how it is divided
        alone = placed(state, {})["w"]
        found.append(alone.full_tensor() if isinstance(alone, DTensor) else alone)
    places.asked("points", keep=1).close()
    return [whole, *found]


def test_complex_numbers_and_what_is_the_first_processs(tmp_path: Path) -> None:
    for whole, *found in in_processes(2, complex_weights, tmp_path):
        for rank, back, alone in (found[:3], found[3:]):
            assert rank == 0
            assert torch.equal(back, whole) and torch.equal(alone, whole)
    layout = json.loads((next((tmp_path / "points").iterdir()) / "layout.json").read_text())
    assert layout["tensors"]["w"]["shape"] == [5, 2, 2]
