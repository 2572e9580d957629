"""A state of nested dictionaries as JSON and tensors, and back: no pickle, nothing is run.

What JSON does not have is written as an object with the key ``"!"``: tensors by their name among
the tensors, tuples, dictionaries with other keys than text, NaN and infinities, dtypes, NumPy
arrays. Everything comes back as it was, floats to the bit.

>>> plain, tensors = to_plain({"step": 3, "betas": (0.9, 0.999), "w": torch.ones(2)})
>>> plain
{'step': 3, 'betas': {'!': 'tuple', 'of': [0.9, 0.999]}, 'w': {'!': 'tensor', 'of': 'w'}}
>>> from_plain(plain, tensors)["w"]
tensor([1., 1.])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.errors import CheckpointError
from ravine.training.devices import Complex, Part, Slices

__all__ = ["from_plain", "to_plain"]

MARK = "!"

Tensors = dict[str, Tensor | Part]
"""Tensors by name, whole or the part of them that is here."""


def to_plain(state: Any) -> tuple[Any, Tensors]:
    """Return the state as JSON's own types, and its tensors by name, copied to the CPU.

    Raises:
        CheckpointError: something in the state has no form; the message names where it is.
    """
    tensors: Tensors = {}
    return _plain(state, "", tensors), tensors


def from_plain(plain: Any, tensors: Mapping[str, Tensor | Slices]) -> Any:
    """Return the state that `to_plain` was given; where it is given slices there are slices in it.

    Raises:
        CheckpointError: this is not what `to_plain` writes.
    """
    try:
        return _state(plain, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise CheckpointError(
            "the state of a checkpoint cannot be understood",
            got=f"{type(error).__name__}: {error}",
            expected="what this version of Ravine writes",
            do="use the version that wrote it, or an earlier checkpoint",
        ) from error


def _plain(value: Any, path: str, tensors: Tensors) -> Any:
    if value is None or isinstance(value, (str, bool)) or type(value) is int:
        return value
    if isinstance(value, (Tensor, Part)):
        return _tensor(value, path, tensors)
    if type(value) is float:
        return value if math.isfinite(value) else {MARK: "float", "of": repr(value)}
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        array = np.array(value, order="C")
        name = _name(path, tensors)
        tensors[name] = torch.from_numpy(array.reshape(-1).view(np.uint8))
        return {MARK: "array", "of": name, "dtype": array.dtype.str, "shape": list(array.shape)}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{path}/{k}", tensors) for k, item in enumerate(value)]
        return items if isinstance(value, list) else {MARK: "tuple", "of": items}
    if isinstance(value, Mapping):
        if MARK not in value and all(isinstance(key, str) for key in value):
            return {key: _plain(item, f"{path}/{key}", tensors) for key, item in value.items()}
        pairs = [
            [_plain(key, path, tensors), _plain(item, f"{path}/{key}", tensors)]
            for key, item in value.items()
        ]
        return {MARK: "dict", "of": pairs}
    if isinstance(value, torch.dtype):
        return {MARK: "dtype", "of": str(value).removeprefix("torch.")}
    raise _formless(path, type(value).__name__)


def _tensor(value: Tensor | Part, path: str, tensors: Tensors) -> dict[str, Any]:
    here = (value.tensor if isinstance(value, Part) else value).detach()
    if here.layout is not torch.strided or here.is_quantized or here.is_meta:
        raise _formless(path, f"a tensor of layout {here.layout} on {here.device}")
    if type(here) not in (Tensor, torch.nn.Parameter):
        raise _formless(path, f"a {type(here).__name__}")
    name = _name(path, tensors)
    marked: dict[str, Any] = {MARK: "tensor", "of": name}
    if here.is_complex():
        value = value.real() if isinstance(value, Part) else value
        here, marked = torch.view_as_real(here), {**marked, "complex": True}
    # A copy in any case: the run goes on while the checkpoint is written.
    copy = here.to("cpu", copy=True, memory_format=torch.contiguous_format)
    tensors[name] = value.holding(copy) if isinstance(value, Part) else copy
    return marked


def _name(path: str, tensors: Mapping[str, Any]) -> str:
    name = path.removeprefix("/") or "value"
    while name in tensors:  # {"a/b": ...} beside {"a": {"b": ...}}
        name += "+"
    return name


def _formless(path: str, what: str) -> CheckpointError:
    return CheckpointError(
        "a part of the state has no form in a checkpoint",
        where=path.removeprefix("/").replace("/", " > ") or "the state",
        got=what,
        expected="tensors, numbers, text, None, and lists, tuples and dictionaries of them",
        do="keep it out of state_dict(), or turn it into one of these there",
    )


def _state(plain: Any, tensors: Mapping[str, Tensor | Slices]) -> Any:
    if isinstance(plain, list):
        return [_state(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    kind = plain.get(MARK)
    if kind is None:
        return {key: _state(item, tensors) for key, item in plain.items()}
    of = plain["of"]
    if kind == "tensor":
        value = tensors[of]
        if not plain.get("complex"):
            return value
        return Complex(value) if isinstance(value, Slices) else torch.view_as_complex(value)
    if kind == "float":
        return float(of)
    if kind == "tuple":
        return tuple(_state(item, tensors) for item in of)
    if kind == "dict":
        return {_state(key, tensors): _state(item, tensors) for key, item in of}
    if kind == "array":
        dtype = np.dtype(plain["dtype"])
        if dtype.kind not in "biuf":
            raise ValueError(f"an array of {dtype}")
        bits = tensors[of]
        bits = bits.alone() if isinstance(bits, Slices) else bits
        array = bits.numpy().view(dtype).reshape(plain["shape"])
        return array[()].copy() if plain["shape"] == [] else array.copy()
    if kind == "dtype":
        found = getattr(torch, str(of))
        if isinstance(found, torch.dtype):
            return found
    raise ValueError(f"unknown form {kind!r}")
