"""The reference's way from what is held to what equations compute with, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ravine.engine.lean import Lean, Stored, decode, encode, random_bits, round_to_bfloat16
from ravine.optim.lean_state import flat
from ravine.optim.sharding import local


class Held(Protocol):
    """A weight with its state as they lie in memory."""

    weight: Tensor
    state: dict[str, Tensor]
    forms: dict[str, Stored]
    scales: dict[str, Tensor]


def opened(gradient: Tensor, held: Held) -> dict[str, Tensor]:
    """Return weight, gradient and state as equations compute with them: real, float32 at least."""
    values = {"w": _computed(local(held.weight).detach()), "g": _computed(gradient.detach())}
    return values | {name: opened_state(held, name) for name in held.state}


def opened_state(held: Held, name: str) -> Tensor:
    """Return one state as equations compute with it."""
    tensor, form = held.state[name], held.forms[name]
    if isinstance(form, Lean) and form.octaves:
        numbers = decode(flat(tensor), held.scales[name], form)
        tensor = numbers.as_strided(tensor.shape, tensor.stride())
    return _computed(tensor)


def _computed(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def store(new: Mapping[str, Tensor], held: Held, key: int) -> None:
    """Write new values to where they are held, each in its form.

    Args:
        new: by variable, in the program's order, which says whose random bits are whose.
        held: where they go.
        key: of the random bits.
    """
    place = 0
    for name, value in new.items():
        target = local(held.weight).detach() if name == "w" else held.state[name]
        form = held.forms[name]
        if not isinstance(form, Lean):
            (torch.view_as_real(target) if target.is_complex() else target).copy_(value)
            continue
        laid = torch.empty_like(target, dtype=torch.float32).copy_(value)
        bits = random_bits(laid.numel(), key, place, form.random_bits, laid.device)
        place += 1
        if form.octaves:
            old = held.scales[name]
            codes, scales = encode(flat(laid), form, bits, old)
            flat(target).copy_(codes)
            old.copy_(scales)
        else:
            rounded = round_to_bfloat16(flat(laid), bits)
            target.copy_(rounded.as_strided(laid.shape, laid.stride()))
