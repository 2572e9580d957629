"""How the state of a weight is held: in full, in bfloat16, or as codes of 8 bits with scales.

Every optimizer has three options for it:

* ``state_dtype``: "float32" (the weight's own type where that is wider), "bfloat16" or "int8", for the
  rule's moments. Other state (the average of the weights, last gradients, step sizes) stays in full; in
  int8 so does the state of weights of fewer than `SMALLEST` elements, and complex weights keep theirs in
  full. Memory of the moments in bytes a weight, of Adam: 8, 4, 2.03. Of the matrix rules Muon and
  Shampoo have one, momentum. SOAP has none: what rounding adds to its momentum is turned into
  directions without gradient and divided by next to nothing (measured: 25 steps in bfloat16 ended
  0.7 of their length away from those in float32).
* ``stochastic_rounding``: round bfloat16 weights at random, so that steps below half their spacing are
  kept on average. False by default: to nearest, the numbers of torch. Weights of other types are not
  rounded; float16 is refused.
* ``rounding_seed``: another seed draws other random bits. They depend on it, on the weight's place in the
  optimizer, its step count and the element, on nothing else, so a resumed run goes on bit by bit.

The formats are those of `ravine.engine.lean`. Numbers are read, rounded and written in the one pass of a
step on the CPU and in its one launch on a GPU, with the same random bits as in plain PyTorch. State is
saved as it is held: ``exp_avg`` in bfloat16, or ``exp_avg_codes`` (uint8, the weight's shape) and
``exp_avg_scales`` (float32, one for 256 elements in the order of memory). Of a sharded weight each process
has the scales of its part; it is saved in full, for any number of processes to load, which rounds once
more: there alone a resumed run is not the same bit by bit. Loading keeps the present ``state_dtype``;
state in another form, torch's too, is converted when the weight is stepped next: from lean to full
exactly, otherwise to the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from ravine.engine import pages
from ravine.engine.choice import is_dense
from ravine.engine.lean import (
    NONNEGATIVE,
    SIGNED,
    STOCHASTIC_BFLOAT16,
    Lean,
    Stored,
    decode,
    encode,
)
from ravine.errors import ArgumentError, ShapeError
from ravine.optim.sharding import divided_as, is_sharded, local, placed_as, placement_of
from ravine.rules import Rule

SMALLEST = 4096
"""Elements below which a weight keeps its state in full where int8 is asked for: biases and gains are
sensitive and take no memory (as bitsandbytes has it)."""

LEAN_OPTIONS = {"state_dtype": "float32", "stochastic_rounding": False, "rounding_seed": 0}
"""The options of every optimizer that say how numbers are held, with their defaults."""

_HALF = (torch.bfloat16, torch.float16)
_CODES = {"signed": SIGNED, "nonnegative": NONNEGATIVE}


def check(rule: Rule, group: Mapping[str, Any], where: str) -> None:
    """Raise an error for options that a rule or its weights cannot follow."""
    states = rule.states or tuple(getattr(rule, "kept", ()))  # of a matrix rule
    if group["state_dtype"] != "float32" and not rule.moments:
        raise ArgumentError(
            f"state_dtype={group['state_dtype']!r} has nothing to hold",
            where=where,
            got=f"a rule with the state {', '.join(states)}" if states else "no state",
            expected="a rule that names its moments",
            do="leave state_dtype out, or give moments= to the rule",
        )


def weight_form(weight: Tensor, group: Mapping[str, Any]) -> Stored:
    """Return how a weight is stored."""
    if not group["stochastic_rounding"] or weight.dtype not in _HALF:
        return weight.dtype
    if weight.dtype is torch.float16:
        raise ArgumentError(
            "stochastic_rounding has no float16",
            where=f"a weight of shape {tuple(weight.shape)}",
            got="float16",
            expected="weights in bfloat16 (others are not rounded)",
            do="hold the weights in bfloat16, or leave stochastic_rounding out",
        )
    return STOCHASTIC_BFLOAT16


def state_form(rule: Rule, name: str, weight: Tensor, group: Mapping[str, Any]) -> Stored:
    """Return how a state of a weight is to be held."""
    wanted = group["state_dtype"]
    if wanted == "float32" or name not in rule.moments or weight.is_complex():
        return full_type(weight)
    if wanted == "bfloat16":
        return STOCHASTIC_BFLOAT16
    return full_type(weight) if weight.numel() < SMALLEST else _CODES[rule.moments[name]]


def full_type(weight: Tensor) -> torch.dtype:
    """Return the type of a weight's state in full."""
    return torch.float32 if weight.dtype in _HALF else weight.dtype


def names(name: str) -> tuple[str, str]:
    """Return where in ``optimizer.state`` the codes of a state are, and their scales."""
    return f"{name}_codes", f"{name}_scales"


def missing(held: Mapping[str, Any], name: str) -> bool:
    """Whether a state is held in no form."""
    return held.get(name) is None and held.get(names(name)[0]) is None


def find(held: Mapping[str, Any], name: str, kind: str | None) -> Tensor | None:
    """Return a state in full, or as it is held if that is a dtype; None if there is none."""
    codes = held.get(names(name)[0])
    if codes is None:
        return held.get(name)
    here, scales = local(codes), held[names(name)[1]]
    values = decode(flat(here), scales, _CODES[kind or "signed"])
    return divided_as(values.as_strided(here.shape, here.stride()), codes)


def in_full_where_sharded(held: dict[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Return the state of a weight as it is saved: codes of a sharded one as the numbers they are.

    Their scales belong to what one process holds, and could not be divided anew.

    Args:
        held: the state.
        kinds: those of the moments, by their names in ``optimizer.state``.
    """
    saved = dict(held)
    for name, kind in kinds.items():
        if is_sharded(saved.get(names(name)[0])):
            saved[name] = take(saved, name, kind)
    return saved


def take(held: MutableMapping[str, Any], name: str, kind: str | None) -> Tensor | None:
    """Return a state as `find` does; what was held as codes is so no longer."""
    found = find(held, name, kind)
    for old in names(name):
        held.pop(old, None)
    return found


def fit(
    held: MutableMapping[str, Any], name: str, form: Stored, weight: Tensor, kind: str | None
) -> tuple[Tensor, Tensor | None] | None:
    """Return a state and its scales in the wanted form, changing what is held where it differs.

    What comes from elsewhere (a saved state in another form) is rounded to the nearest.
    """
    codes, scales = held.get(names(name)[0]), held.get(names(name)[1])
    present = held.get(name) if codes is None else codes
    if present is None:
        return None
    if present.shape != weight.shape:
        raise ShapeError(
            f"the state {name!r} does not fit its weight",
            got=f"shape {tuple(present.shape)}",
            expected=f"shape {tuple(weight.shape)}",
            do="delete optimizer.state[weight] where a weight gets another shape",
        )
    if codes is None:
        present = held[name] = placed_as(present, weight)
    in_place = local(present).stride() == strides(local(weight))
    in_place = in_place and present.device == weight.device
    in_place = in_place and placement_of(present) == placement_of(weight)
    if isinstance(form, Lean) and form.octaves:
        if not (in_place and codes is not None and scales is not None):
            full = find(held, name, kind)
            assert full is not None  # one of the two is there
            return put(held, name, form, weight, placed_as(full, weight))
        return codes, scales
    dtype = form.dtype if isinstance(form, Lean) else form
    loose = isinstance(form, torch.dtype) and present.dtype not in _HALF  # float64 may stay
    if codes is not None or not in_place or (present.dtype is not dtype and not loose):
        full = find(held, name, kind)
        assert full is not None
        if loose and codes is None:
            form = full.dtype
        return put(held, name, form, weight, placed_as(full, weight))
    return present, None


def put(
    held: MutableMapping[str, Any], name: str, form: Stored, weight: Tensor, value: Tensor | complex
) -> tuple[Tensor, Tensor | None]:
    """Hold values, of the weight's shape or all the same, as a state; return it and its scales."""
    for old in (name, *names(name)):
        held.pop(old, None)
    dtype = form if isinstance(form, torch.dtype) else form.dtype
    coded = isinstance(form, Lean) and form.octaves > 0
    target = pages.empty_like(weight, torch.float32 if coded else dtype)
    target = target.copy_(value) if isinstance(value, Tensor) else target.fill_(value)
    if not coded:
        held[name] = target
        return target, None
    assert isinstance(form, Lean)
    here = local(target)
    codes, scales = encode(flat(here), form)
    codes = divided_as(codes.as_strided(here.shape, here.stride()), weight)
    held[names(name)[0]], held[names(name)[1]] = codes, scales
    return codes, scales


def strides(weight: Tensor) -> tuple[int, ...]:
    """Return the strides of a weight's state: the weight's own where that has no gaps."""
    return weight.stride() if is_dense(weight) else torch.empty_like(weight, device="meta").stride()


def flat(tensor: Tensor) -> Tensor:
    """Return the elements of a tensor without gaps in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def words(forms: Mapping[str, Stored], group: Mapping[str, Any]) -> str:
    """Say how a bucket's numbers are held, where anything was asked for."""
    said = []
    lean = {form.name for name, form in forms.items() if isinstance(form, Lean) and name != "w"}
    if lean:
        said.append(f"moments in {', '.join(sorted(lean))}")
    elif group["state_dtype"] == "int8":
        said.append(f"state in full (complex, or below {SMALLEST} weights)")
    if isinstance(forms.get("w"), Lean):
        said.append("weights rounded at random")
    return "".join(f", {text}" for text in said)
