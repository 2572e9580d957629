"""What a step is computed with: the model's layout, the processes, the precision, the parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.data import mixed
from ravine.errors import ArgumentError
from ravine.regularize import Dropout, Part
from ravine.training.devices.layouts import Copies, Divided, Here, Layout
from ravine.training.devices.parts import Parts
from ravine.training.devices.precision import Precision, precision_of
from ravine.training.devices.recomputing import recompute, undo
from ravine.training.devices.team import Team
from ravine.training.devices.way import Way


@dataclass
class Devices:
    """Everything between a batch and the gradients of its loss.

    Attributes:
        layout: where the weights are.
        team: the processes.
        precision: the types of the arithmetic.
        parts: how batches are divided.
    """

    layout: Layout
    team: Team
    precision: Precision
    parts: Parts

    @classmethod
    def alone(cls, model: nn.Module) -> Devices:
        """Return the plainest: one process, whole batches, all bits."""
        return cls(Here(model), Team(), Precision(), Parts())

    @classmethod
    def made(cls, model: nn.Module, way: Way, team: Team, device: torch.device) -> Devices:
        """Prepare a model, which is changed, and return what computes its steps."""
        team.share([*model.parameters(), *model.buffers()])
        if way.checkpoint_activations:
            recompute(model)
        if way.compile:
            model.compile()
        layout: Layout
        if team.world == 1:
            layout = Here(model)
        elif way.parallel == "sharded":
            layout = Divided(model, team.world, device)
        else:
            layout = Copies(model, team.world)
        parts = Parts(way.accumulate, team.rank, team.world)
        return cls(layout, team, precision_of(way.precision, device), parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's output as the loss takes it, for data that is only looked at."""
        with self.precision.forward():
            output: Tensor = self.precision.output(self.layout.model(inputs))
        return output

    def share_buffers(self, model: nn.Module) -> None:
        """Take the first process's buffers (statistics of batch norm), but for masks of dropout."""
        self.team.share(_shared(model))

    def own_masks(self, model: nn.Module) -> None:
        """Let dropout draw other masks in every process, which follow from the first one's."""
        if self.team.rank:
            for module in model.modules():
                if isinstance(module, Dropout):
                    seed, call = module.stream.tolist()
                    low, high, *_ = mixed(seed, self.team.rank)
                    with torch.no_grad():
                        module.stream.copy_(torch.tensor([(high >> 1) << 32 | low, call]))

    def own_random(self, *numbers: int) -> None:
        """Let torch draw other numbers in every process but the first, decided by these numbers."""
        if self.team.rank:
            torch.manual_seed(mixed(*numbers, self.team.rank)[0])

    def check_parts(self, parts: Sequence[Part]) -> None:
        """Raise if a regulariser at work needs whole weights and each process has a part of them."""
        for part in parts:
            if self.layout.divided and (part.ascends or part.state_dict()):
                raise ArgumentError(
                    "a regulariser does not work on weights that are divided over processes",
                    got=f"{type(part).__name__} with parallel='sharded' in {self.team.world} processes",
                    expected="one that looks at each row of a weight alone",
                    do="use parallel='data', where every process has whole weights, or leave it out",
                )

    def facts(self) -> dict[str, Any]:
        """Return what a record should say: nothing of one process with all bits."""
        found: dict[str, Any] = {}
        if self.team.world > 1:
            found["processes"] = self.team.world
        if self.precision.state_dict():
            found["skipped_steps"] = self.precision.skipped
        return found

    def plain(self) -> nn.Module:
        """Return the trained model as one process has it, with nothing of this attached."""
        model = self.layout.plain()
        undo(model)
        model._compiled_call_impl = None
        return model


def _shared(model: nn.Module) -> Iterator[Tensor]:
    streams = {id(m.stream) for m in model.modules() if isinstance(m, Dropout)}
    yield from (buffer for buffer in model.buffers() if id(buffer) not in streams)
