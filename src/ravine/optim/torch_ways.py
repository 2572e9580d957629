"""Torch's own keywords for what is said otherwise here, or needs not be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ravine.errors import ArgumentError

_ALIKE = ("foreach", "fused")
"""How torch is told to run the same step in another way; here it always is fused."""

_REFUSED = {
    "differentiable": "use torch.optim's class of the same name to differentiate through a step",
}
"""What is only taken as False, and what to do instead."""

_DECOUPLED = "decoupled_weight_decay"
"""How torch's Adam, NAdam and RAdam say decay="decoupled"."""

TORCH_WAYS = (*_ALIKE, *_REFUSED, _DECOUPLED)
"""Every keyword of torch's that is translated."""


def translated(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return options in this library's words.

    Raises:
        ArgumentError: a keyword asks for what is not done here, or two contradict each other.
    """
    for name, instead in _REFUSED.items():
        if options.get(name, False):
            raise ArgumentError(
                f"{name} is not supported",
                where=f"{where}, option {name}",
                got=repr(options[name]),
                expected="False",
                do=instead,
            )
    rest = {name: value for name, value in options.items() if name not in TORCH_WAYS}
    decoupled = options.get(_DECOUPLED)
    if decoupled is None:
        return rest
    decay = "decoupled" if decoupled else "coupled"
    if rest.setdefault("decay", decay) != decay:
        raise ArgumentError(
            "two options say differently what weight decay means",
            where=where,
            got=f"{_DECOUPLED}={decoupled!r}, decay={rest['decay']!r}",
            do="give one of them",
        )
    return rest


def in_torchs_words(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group to be saved, with the kind of weight decay as torch reads it too."""
    return {**group, _DECOUPLED: group.get("decay") == "decoupled"}


def with_decay(group: dict[str, Any]) -> dict[str, Any]:
    """Return a saved group with the kind of weight decay in this library's words."""
    if _DECOUPLED not in group:
        return group
    return {"decay": "decoupled" if group[_DECOUPLED] else "coupled", **group}
