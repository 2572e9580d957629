"""How a model lies over the processes: here alone, a copy in each, or a part in each."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ravine.engine.norm import squared_norm
from ravine.optim.sharding import gradient_norm, is_sharded
from ravine.training.devices.blocks import blocks


class Layout(Protocol):
    """What the step asks of a model.

    Attributes:
        model: the model, for data that is only looked at.
        forward: what is called with the inputs while training.
        times: what a loss is multiplied by so that the gradients are added up over processes.
        divided: whether a process holds a part of the weights only.
    """

    model: nn.Module
    forward: Callable[[Tensor], Any]
    times: float
    divided: bool

    def syncing(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a pass, after the last of which gradients are added up."""

    def gradient_norm(self) -> float:
        """Return the norm of the gradient over all weights, wherever they are."""

    def plain(self) -> nn.Module:
        """Return the model as one process has it."""


class Here:
    """The whole model in this process, and nowhere else."""

    times = 1.0
    divided = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward: Callable[[Tensor], Any] = model

    def syncing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def gradient_norm(self) -> float:
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        return math.sqrt(squared_norm(grads))

    def plain(self) -> nn.Module:
        return self.model


class Copies(Here):
    """A copy of the model in every process, kept alike (``DistributedDataParallel``).

    Buffers stay each process's own, as the masks of dropout have to: statistics of batch norm are
    those of the process's rows, and those of the first process are kept (`Team.share`).
    """

    def __init__(self, model: nn.Module, world: int) -> None:
        super().__init__(model)
        self.times = float(world)  # it takes the mean over the processes
        trained = any(p.requires_grad for p in model.parameters())
        if trained:  # otherwise making the optimizer says what is wrong
            self.forward = self._copies = _copies(model)

    def syncing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._copies.no_sync()


def _copies(model: nn.Module) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # Its new name is forward_sync_buffers, which torch before 2.12 does not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False)


class Divided:
    """A part of every weight in each process (``fully_shard``), block by block."""

    divided = True

    def __init__(self, model: nn.Module, world: int, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._one = copy.deepcopy(model).cpu()
        mesh = init_device_mesh(device.type, (world,))
        for block in blocks(model):
            fully_shard(block, mesh=mesh)
        # Else the outermost weights stay whole after an evaluation, which has no backward pass.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        self.model: nn.Module = model
        self._sharded: Any = model  # fully_shard gives it methods
        self.forward: Callable[[Tensor], Any] = model
        self.times = float(world)  # it takes the mean over the processes

    @contextmanager
    def syncing(self, last: bool) -> Any:
        self._sharded.set_requires_gradient_sync(last)
        yield

    def gradient_norm(self) -> float:
        return gradient_norm(self.model.parameters())

    def plain(self) -> nn.Module:
        device = next(self.model.parameters()).device
        own = self._one.state_dict()
        for name, value in self.model.state_dict().items():
            if is_sharded(value):  # one after the other: never the model twice
                own[name].copy_(value.full_tensor())
            else:
                own[name] = value
        self._one.load_state_dict(own)
        found: nn.Module = self._one.to(device)
        found.train(self.model.training)
        return found
