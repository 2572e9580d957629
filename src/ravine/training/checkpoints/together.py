"""Writing one checkpoint by all processes of a run: each its part of what is divided.

`torch.distributed.checkpoint` plans who writes what and tells every process how it went; the files
are ours. Its own writers describe them by a pickle (``.metadata``), or have no checksums.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from ravine.training.checkpoints.folder import begin, drop, facts, finish, flush, part_of, unwritten
from ravine.training.checkpoints.layout import LAYOUT, MOST, file_of, spelled
from ravine.training.devices import Part, Team

__all__ = ["write_together"]


def write_together(
    folder: Path, plain: Any, tensors: dict[str, Tensor | Part], team: Team, due: Callable[[], bool]
) -> None:
    """Write a state as the folder, which is whole after or not there; all processes take part.

    Args:
        folder: seen by all of them.
        plain, tensors: the state; of what is not divided the first process's is written.
        team: the processes.
        due: asked in the first process, whether there is something to write.

    Raises:
        CheckpointError: one of them cannot write; raised in all, and what was begun is taken away.
        DistributedError: one of them ended.
    """
    parts = {name: one for name, one in tensors.items() if isinstance(one, Part)}
    whole = {name: one for name, one in tensors.items() if isinstance(one, Tensor)}
    try:
        with team.guarded():
            save(
                parts,
                storage_writer=_Writer(folder, plain, whole, due),
                planner=_Planner(flatten_state_dict=False, flatten_sharded_tensors=False),
                process_group=team.group_for_threads(),
            )
    except CheckpointException as caught:
        rank, (error, _) = min(caught.failures.items(), key=lambda failure: failure[0])
        told = str(error) if type(error) is _WordsError else f"{type(error).__name__}: {error}"
        if team.leads:
            drop(folder)  # the others have closed their files: they said so
        raise unwritten(folder, f"process {rank}: {told}") from caught


class _Planner(DefaultSavePlanner):
    """Plans the writing of the parts that are here; torch's own removes copies and looks for gaps."""

    def create_local_plan(self) -> SavePlan:
        items = [_item(name, part) for name, part in self.state_dict.items()]
        self.plan = SavePlan([item for item in items if item is not None])
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        found: Tensor = self.state_dict[index.fqn].tensor
        return found


def _item(name: str, part: Part) -> WriteItem | None:
    """Return what is to be written; nothing, of a tensor with fewer rows than there are processes."""
    if part.tensor.numel() == 0 and 0 not in part.shape:
        return None
    offsets = torch.Size(part.offsets)
    data = TensorWriteData(
        chunk=ChunkStorageMetadata(offsets, part.tensor.size()),
        properties=TensorProperties(dtype=part.tensor.dtype),
        size=torch.Size(part.shape),
    )
    return WriteItem(MetadataIndex(name, offsets), WriteItemType.SHARD, tensor_data=data)


class _Writer(StorageWriter):
    """Writes a safetensors file in each process, and in the first all else.

    What it raises is in words only: it is told to the other processes.
    """

    def __init__(
        self, folder: Path, plain: Any, whole: dict[str, Tensor], due: Callable[[], bool]
    ) -> None:
        self._folder = folder
        self._plain = plain
        self._whole = whole
        self._due = due
        self._plans: list[SavePlan] = []

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: it writes one checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: who coordinates is asked for the global plan."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        with _in_words():
            if len(plans) > MOST:
                raise ValueError(f"{len(plans)} processes, more than {MOST}")
            if not self._due():
                return [replace(plan, items=[]) for plan in plans]
            begin(self._folder)
        self._plans = plans
        names = (file_of(k, len(plans)) for k in range(1, len(plans) + 1))
        return [replace(p, storage_data=name) for p, name in zip(plans, names, strict=True)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        done: Future[list[WriteResult]] = Future()
        with _in_words():
            done.set_result([] if plan.storage_data is None else [self._written(plan, planner)])
        return done

    def _written(self, plan: SavePlan, planner: SavePlanner) -> WriteResult:
        from safetensors.torch import save_file

        path = part_of(self._folder) / plan.storage_data
        here: Any = {item.index.fqn: planner.resolve_data(item) for item in plan.items}
        save_file(here, str(path))
        found = facts(path)
        flush(path)
        return WriteResult(MetadataIndex(path.name), found["bytes"], found)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        if not self._plans:
            return
        with _in_words():
            layout = part_of(self._folder) / LAYOUT
            layout.write_text(_layout(self._plans), encoding="utf-8")
            others = {one.index.fqn: one.storage_data for (one,) in results}
            others[LAYOUT] = facts(layout)
            flush(layout)
            finish(self._folder, self._plain, self._whole, others)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False  # it is never chosen by a name


def _layout(plans: Sequence[SavePlan]) -> str:
    tensors: dict[str, Any] = {}
    for number, plan in enumerate(plans, 1):
        for item in plan.items:
            data = item.tensor_data
            assert data is not None  # of a tensor
            entry: Any = (data.properties.dtype, tuple(data.size), [])
            _, _, chunks = tensors.setdefault(item.index.fqn, entry)
            if math.prod(data.chunk.sizes):
                chunks.append((number, tuple(data.chunk.offsets), tuple(data.chunk.sizes)))
    return spelled(tensors)


class _WordsError(Exception):
    """What went wrong, in words only."""


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Let an error be one that can be told to other processes.

    That of safetensors 0.4 cannot: it says to be of a module that cannot be imported.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise _WordsError(f"{type(error).__name__}: {error}") from error
