"""The newest state of a run that has no directory: in memory, for as long as the run takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.training.checkpoints.folder import Position
from ravine.training.devices import Part

__all__ = ["Memory"]


class Memory:
    """Holds states as a `Store` does on the disk, copied to the CPU.

    Args:
        keep: how many of the last ones, >= 1.
    """

    busy = False
    seconds = 0.0

    def __init__(self, keep: int = 1) -> None:
        self.keep = keep
        self._held: list[tuple[Position, Any]] = []

    def save(self, position: Position, state: Any, *, anew: bool = True) -> None:
        """Copy the state."""
        self._held = [one for one in self._held if one[0] != position]
        self._held.append((position, _copied(state)))
        del self._held[: -self.keep]

    def newest(self, at_most: Position | None = None) -> tuple[Position | None, Any, list[str]]:
        """Return position and state; the state's tensors are copies."""
        for position, state in reversed(self._held):
            if at_most is None or position <= at_most:
                return position, _copied(state), []
        return None, None, []

    def take(self) -> tuple[Position, Any] | None:
        """Hand over what was held last; nothing is held then."""
        held, self._held = self._held, []
        return held[-1] if held else None

    def drop_after(self, position: Position) -> None:
        """Forget what is newer."""
        self._held = [one for one in self._held if one[0] <= position]

    def wait(self) -> None:
        """Return: nothing is written."""

    def close(self) -> None:
        """Return: nothing is open."""


_PLAIN = {int, float, str, bool, type(None)}


def _copied(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    if isinstance(value, Part):
        return value.holding(_copied(value.tensor))
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) is tuple and _PLAIN.issuperset(map(type, value)):
        return value  # Python's random state has 625 numbers
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return copy.deepcopy(value)
