"""CUDA graphs that are being captured of what runs now: nothing may wait for the device meanwhile."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from ravine.errors import ArgumentError


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of a device, the current one if it has no number, is being captured."""
    if device.type != "cuda":
        return False
    with nullcontext() if device.index is None else torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def refuse(what: str, device: torch.device, *, got: str, expected: str, do: str) -> None:
    """Raise if it is: what is about to run has to wait. Torch's own error would not say for what."""
    if is_capturing(device):
        raise ArgumentError(
            f"{what} cannot be captured by a CUDA graph", got=got, expected=expected, do=do
        )
