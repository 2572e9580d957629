"""The processes that train one model together: what they tell each other beside gradients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ravine.errors import DistributedError, RavineError

T = TypeVar("T")

MEET = 0.1
"""Seconds between two meetings where all agree on what one of them alone knows (a signal, a clock):
a message of one number takes 0.1 ms between two processes of one machine."""


class Team:
    """One process alone, who has nothing to ask.

    Attributes:
        rank, world: this process's number, and how many there are.
        leads: whether this process writes files and tells listeners.
    """

    rank = 0
    world = 1
    leads = True

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; of several, in float64."""
        return value

    def sums(self, values: list[float]) -> list[float]:
        """Return the sum of each number over all processes."""
        return values

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""

    def gathered(self, value: T) -> list[T]:
        """Return the value of every process."""
        return [value]

    def led(self, call: Callable[[], T]) -> T:
        """Call in the first process alone; return, or raise, in all of them what came of it."""
        return call()

    def guarded(self) -> AbstractContextManager[None]:
        """Say in the block's errors that another process ended while this one waited for it."""
        return contextlib.nullcontext()

    def group_for_threads(self) -> Any:
        """Return a process group for messages between threads; all processes ask for it at once.

        Messages of the run go over another one, so that the two never wait for each other.
        """

    def close(self) -> None:
        """End what was made here."""

    def agreement(self) -> Callable[[int], int]:
        """Return what finds the largest of a number: asked equally often in all processes.

        The answer may come some calls later than the number (`MEET`); 0 means not yet.
        """
        return int


class Together(Team):
    """Several processes, over the process group that torch has."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self.leads = self.rank == 0
        self._device = device
        self._group: dist.ProcessGroup | None = None

    def sum(self, value: Tensor) -> Tensor:
        value = value.double()  # one that stands in for no rows may have another type
        dist.all_reduce(value)
        return value

    def sums(self, values: list[float]) -> list[float]:
        found: list[float] = self.sum(
            torch.tensor(values, dtype=torch.float64, device=self._device)
        ).tolist()
        return found

    def share(self, tensors: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gathered(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def led(self, call: Callable[[], T]) -> T:
        told: list[Any] = [None, None]
        error: BaseException | None = None
        if self.leads:
            try:
                told[0] = call()
            except BaseException as caught:
                error, told[1] = caught, f"{type(caught).__name__}: {caught}"
        dist.broadcast_object_list(told, 0)
        if error is not None:
            raise error
        if told[1] is not None:
            raise DistributedError(
                "the first process could not go on", where="process 0", got=str(told[1])
            )
        found: T = told[0]
        return found

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, RavineError) or not _is_of_a_connection(error):
                raise
            raise DistributedError(
                "another process of the run ended",
                where=f"process {self.rank} of {self.world}",
                got=str(error).splitlines()[0],
                do="look for the error that it printed before it ended",
            ) from error

    def group_for_threads(self) -> dist.ProcessGroup:
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        return self._group

    def close(self) -> None:
        if self._group is not None:  # a process that waits for this one is told so by that
            group, self._group = self._group, None
            dist.destroy_process_group(group)

    def agreement(self) -> Callable[[int], int]:
        return _Agreement(self._device, self.leads)


def _is_of_a_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


class _Agreement:
    """Meets every so many calls, which the first process decides by its clock."""

    def __init__(self, device: torch.device, leads: bool) -> None:
        self._device = device
        self._leads = leads
        self._calls = self._left = 1
        self._last = time.monotonic()
        self._largest = 0

    def __call__(self, value: int) -> int:
        self._largest = max(self._largest, value)
        self._left -= 1
        if self._left:
            return 0
        message = torch.tensor([self._largest, self._next()], device=self._device)
        dist.all_reduce(message, dist.ReduceOp.MAX)
        found, self._calls = message.tolist()
        self._left, self._last, self._largest = self._calls, time.monotonic(), 0
        return int(found)

    def _next(self) -> int:
        """Return in how many calls to meet again; at most twice as many as last time."""
        if not self._leads:
            return 0
        one = (time.monotonic() - self._last) / self._calls
        return max(1, min(2 * self._calls, int(MEET / max(one, 1e-9))))


def check_same(team: Team, config: dict[str, Any]) -> None:
    """Raise unless all processes are to train the same.

    Raises:
        DistributedError: something differs; the first such thing is named.
    """
    first, *others = team.gathered(config)
    for rank, other in enumerate(others, start=1):
        for name, value in first.items():
            if other.get(name) != value:
                raise DistributedError(
                    f"{name} is not the same in all processes",
                    where=f"process {rank}",
                    got=str(other.get(name)),
                    expected=f"{value}, as in process 0",
                )
